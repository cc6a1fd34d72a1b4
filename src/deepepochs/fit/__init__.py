"""What is true during one call of fit, test, predict or find_lr, and nothing longer."""
