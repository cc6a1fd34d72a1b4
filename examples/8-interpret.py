"""Example 8: what does the model confuse, and on which images is it worst?"""

import torch
from data import mnist
from torch import nn
from torch.nn import functional as F

from deepepochs import InterpretCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
train_dl, val_dl, test_dl = mnist(batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

# A confusion matrix for each epoch, and the 15 images of the test with the largest loss.
# The metric must give one value for each image: reduction='none'.
interpret = InterpretCallback(
    metric=nn.CrossEntropyLoss(reduction="none"),
    k=15,
    mode="max",  # 'min': the images with the smallest loss
    image_data=True,  # draw the images in TensorBoard, too
    class_names=["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
)
trainer = Trainer(model, F.cross_entropy, opt, epochs=3, metrics=[accuracy], callbacks=interpret)
trainer.fit(train_dl, val_dl)
trainer.test(test_dl)

print(interpret.confusion_matrix)  # of the test: rows are the true digits, columns the guesses
for loss, output, target, image in interpret.top_samples()[:5]:
    guess = int(output.argmax())
    print(f"loss {loss:.2f}: a {int(target)} taken for a {guess}; the image is {list(image.shape)}")

interpret.plot_confusion(title_info="test").savefig("confusion.png")
interpret.plot_top().savefig("worst.png")

# All of it in TensorBoard, under IMAGES. This line waits until you press Ctrl-C:
# interpret.run_tensorboard()
