"""What other libraries call our arguments, attributes, classes, metrics and losses.

Read on the way to an error only.

>>> advice_on_argument("optimizer", ["model", "loss", "opt"])
"Did you mean 'opt'?"
>>> advice_on_argument("lr", ["model", "loss", "opt"])
'The learning rate belongs to the optimizer: opt=torch.optim.Adam(model.parameters(), lr=1e-3).'
>>> advice_on_attribute("evaluate")
'trainer.test(test_dl) gives the loss and the metrics of a loader.'
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .near import did_you_mean, nearest

# Each name of ours, and what others call it. The first that a function has is meant.
MEANT = {
    "loss": "criterion loss_fn loss_func loss_function lossfn objective",
    "opt": "optimizer optimizers optim optimiser opt_func opt_fn optimizer_fn opts",
    "epochs": "epoch max_epochs num_epochs n_epochs n_epoch nb_epochs nepochs num_train_epochs",
    "metrics": "metric metric_fn metric_fns metrics_fn score scoring eval_metrics",
    "callbacks": "callback cbs cb cbks",
    "train_dl": "train_loader train_dataloader train_dataloaders trainloader training_loader dl "
    "train_data training_data train_dataset train_ds train loader dataloader dataloaders data",
    "val_dl": "val_loader valid_loader validation_loader val_dataloader val_dataloaders valid_dl "
    "valloader valid_dataloader val_data valid_data validation_data val_dataset valid_ds val_ds "
    "val eval_dl eval_loader eval_set dataloader",
    "test_dl": "test_loader test_dataloader test_dataloaders testloader test_data test_dataset test_ds "
    "test dl loader dataloader dataloaders data val_dl val_loader",
    "dataloader": "dl loader dataloaders data test_dl test_loader test_dataloader",
    "arrays": "x y X Y inputs",
    "max_size": "max max_batch_size max_val limit",
    "steps": "num_steps n_steps batches num_batches",
    "model": "net network module learner pl_module nn_model",
    "device": "accelerator devices gpus gpu gpu_ids strategy device_ids num_gpus use_gpu cuda",
    "precision": "amp use_amp fp16 bf16 mixed_precision autocast half",
    "running_id": "run_id run_name name run experiment experiment_name exp_name version",
    "resume": "ckpt_path resume_from_checkpoint resume_from checkpoint ckpt checkpoint_path",
    "hyper_params": "hparams hyperparams hyperparameters params config cfg",
    "grad_accumulate": "accumulate_grad_batches gradient_accumulation_steps accumulation_steps "
    "accum_steps grad_accum accumulate",
    "compile_model": "compile torch_compile jit_compile",
    "targets": "target labels label label_key target_key",
    "val_freq": "check_val_every_n_epoch validation_freq val_every_n_epochs eval_every valid_freq "
    "val_interval",
    "console": "verbose progress_bar enable_progress_bar show_progress progress silent quiet progbar "
    "disable_tqdm bar",
    "tasks": "task test_tasks",
    "train_tasks": "task train_task tasks",
    "val_tasks": "val_task valid_tasks",
    "monitor": "metric metrics quantity monitor_metric",
    "on_stage": "stage split phase",
    "ckpt_dir": "dirpath filepath path save_dir dir directory folder checkpoint_dir root_dir "
    "default_root_dir out_dir output_dir log_dir save_path",
    "log_dir": "save_dir dir directory folder root_dir logdir path ckpt_dir",
    "keep": "save_top_k top_k max_to_keep num_best n_best",
    "save_best": "save_best_only restore_best_weights load_best",
    "every_n_batches": "every_n_steps save_steps every_n_train_steps log_every_n_steps save_freq period",
    "max_value": "clip_value value threshold",
    "norm_type": "norm p clip_type gradient_clip_algorithm",
    "scheduler": "sched schedulers lr_scheduler schedule scheduler_fn lr_sched",
    "sched_on": "interval step_on sched_step when on every",
    "min_lr": "start_lr lr_min init_lr init_value",
    "max_lr": "end_lr lr_max final_lr final_value",
    "max_batch": "num_it num_iter num_training max_iter num_steps steps iterations num_batches",
    "lr": "learning_rate lrs base_lr eta lr_max",
    "weight_decay": "wd l2 momentum betas",
    "batch_size": "bs batch_sz train_batch_size",
    "shuffle": "num_workers drop_last pin_memory sampler collate_fn",
    "validation_split": "val_split val_size train_size cv",
    "patience": "early_stopping early_stop early_stopping_patience early_stopping_rounds",
    "clip": "gradient_clip_val max_grad_norm clip_grad clip_grad_norm grad_clip clip_norm clipnorm "
    "clipvalue clip_value gradient_clip_algorithm max_norm",
    "seed": "random_state random_seed manual_seed rng",
    "logger": "loggers log tensorboard writer wandb use_wandb tb",
    "class_weight": "class_weights pos_weight sample_weight weight",
    "max_steps": "steps num_steps max_iter max_iters total_steps max_train_steps num_training_steps",
    "max_time": "max_seconds time_limit timeout max_duration timer",
    "limit_train_batches": "steps_per_epoch train_steps num_train_batches max_train_batches",
    "limit_val_batches": "validation_steps val_steps limit_eval_batches max_val_batches",
    "val_every": "val_check_interval eval_steps val_every_n_steps eval_every_n_steps",
    "overfit_batches": "overfit overfit_pct",
    "dry_run": "fast_dev_run smoke_test debug",
    "best": "best_weights use_best load_best weights",
    "limit_test_batches": "test_steps max_test_batches",
    "deterministic": "use_deterministic cudnn_deterministic",
    "on_oom": "split_on_oom oom auto_find_batch_size skip_oom",
    "every": "update_every update_freq update_every_n_steps",
    "warmup": "warmup_steps warm_up use_warmup",
    "buffers": "use_buffers update_buffers",
    "names": "layers modules pattern patterns parameters params",
    "data": "input_size input_data input_shape example_input example_input_array batch loader "
    "train_dl",
    "depth": "max_depth",
    "path": "dirpath filepath filename file out trace",
    "background": "async_save asynchronous save_async non_blocking",
    "limit_predict_batches": "limit_batches max_batches",
    "summary": "enable_model_summary weights_summary model_summary",
    "checkpoints": "enable_checkpointing checkpointing checkpoint_callback save_strategy",
    "sanity": "num_sanity_val_steps sanity_steps",
    "profiler": "profile",
    "log_batches": "log_every_n_steps logging_steps flush_logs_every_n_steps",
    "find_batch_size": "auto_scale_batch_size scale_batch_size",
    "find_lr": "auto_lr_find lr_find",
    "freeze": "freeze_layers frozen unfreeze freeze_epochs unfreeze_at unfreeze_backbone_at_epoch",
    "val_by": "evaluation_strategy eval_strategy val_strategy",
    "benchmark": "cudnn_benchmark",
    "detect_anomaly": "anomaly_detection",
    "least": "min_epochs min_steps",
    "initial_epoch": "start_epoch first_epoch",
    "ema": "ema_decay model_ema use_ema ema_model ema_momentum weight_averaging swa use_swa",
}

# Where the value differs as well.
SHOWN = {
    "device": "device='cuda'",
    "precision": "precision='bf16'",
    "resume": "resume='auto'",
    "compile_model": "compile_model=True",
    "ema": "ema=0.999",
    "val_every": "val_every=500, in optimizer steps",
    "dry_run": "dry_run=True",
}

# How to give what a function does not take.
HOW = {
    "loss": "The loss function is given to the trainer: Trainer(model, loss, opt).",
    "opt": "The optimizer is given to the trainer: Trainer(model, loss, opt).",
    "model": "The model is given to the trainer: Trainer(model, loss, opt).",
    "epochs": "The number of epochs is given to the trainer or to fit: fit(train_dl, epochs=10).",
    "metrics": "Metrics are given to the trainer, fit or test: Trainer(..., metrics='accuracy').",
    "callbacks": "Callbacks are given to the trainer: Trainer(..., callbacks=[...]).",
    "train_dl": "The data are given to fit: trainer.fit(train_dl, val_dl).",
    "val_dl": "The data are given to fit: trainer.fit(train_dl, val_dl).",
    "test_dl": "The test data are given to test: trainer.test(test_dl).",
    "device": "The device is given to the trainer: Trainer(..., device='cuda').",
    "precision": "The precision is given to the trainer: Trainer(..., precision='bf16').",
    "running_id": "The name of the run is given to the trainer: Trainer(..., running_id='mine').",
    "resume": "What is resumed is given to the trainer: Trainer(..., resume='auto').",
    "hyper_params": "Hyper-parameters are given to the trainer: Trainer(..., hyper_params={...}).",
    "grad_accumulate": "It is given to the trainer: Trainer(..., grad_accumulate=4).",
    "compile_model": "It is given to the trainer: Trainer(..., compile_model=True).",
    "val_freq": "It is given to fit: trainer.fit(train_dl, val_dl, val_freq=5).",
    "console": "What is shown is set at the trainer: Trainer(..., console='off').",
    "monitor": "The metric that decides is given to a callback: CheckCallback('accuracy').",
    "ckpt_dir": "The folder is given to a callback: callbacks=CheckCallback('loss', ckpt_dir='runs').",
    "log_dir": "The folder is given to a callback: callbacks=LogCallback(log_dir='runs').",
    "keep": "Checkpoints are kept by a callback: callbacks=CheckCallback('loss', keep=3).",
    "save_best": "The best weights are kept by a callback: callbacks=CheckCallback('loss').",
    "scheduler": "A schedule is given with its optimizer: opt=Optimizer(opt, scheduler).",
    "lr": "The learning rate belongs to the optimizer: "
    "opt=torch.optim.Adam(model.parameters(), lr=1e-3).",
    "weight_decay": "It belongs to the optimizer: "
    "opt=torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4).",
    "batch_size": "The batch size belongs to the loader: DataLoader(dataset, batch_size=32).",
    "shuffle": "It belongs to the loader: "
    "DataLoader(dataset, batch_size=32, shuffle=True, num_workers=2).",
    "validation_split": "Split the data: train, val = torch.utils.data.random_split(dataset, [0.8, 0.2]), "
    "and give fit a DataLoader of each.",
    "patience": "A callback stops early: callbacks=EarlyStopCallback('loss', patience=5).",
    "clip": "A callback clips gradients: GradClipCallback(1.0, norm_type=2) by their norm, "
    "GradClipCallback(0.5) by value.",
    "seed": "Call set_seed(42) before the model and the loaders are made.",
    "logger": "A callback logs: callbacks=LogCallback() for TensorBoard, TrackerCallback for others.",
    "class_weight": "The loss function has it: loss=nn.CrossEntropyLoss(weight=torch.tensor([...])).",
    "max_steps": "It is given to the trainer: Trainer(..., max_steps=10_000).",
    "max_time": "It is given to the trainer: Trainer(..., max_time='1h30m').",
    "limit_train_batches": "It is given to the trainer: Trainer(..., limit_train_batches=100).",
    "limit_val_batches": "It is given to the trainer: Trainer(..., limit_val_batches=100).",
    "val_every": "It is given to the trainer: Trainer(..., val_every=1000), in optimizer steps.",
    "overfit_batches": "It is given to the trainer: Trainer(..., overfit_batches=4).",
    "dry_run": "It is given to the trainer: Trainer(..., dry_run=True).",
    "limit_test_batches": "It is given to the trainer: Trainer(..., limit_test_batches=100).",
    "deterministic": "It is given to the trainer: Trainer(..., deterministic=True).",
    "on_oom": "It is given to the trainer: Trainer(..., on_oom='split').",
    "limit_predict_batches": "limit_train_batches, limit_val_batches and limit_test_batches of the "
    "trainer take the first mini-batches of a pass; predict takes all that its loader gives.",
    "summary": "print(trainer.summary(train_dl)) shows the layers, shapes and parameters.",
    "checkpoints": "Only a callback saves checkpoints: callbacks=CheckCallback('loss').",
    "sanity": "Trainer(..., dry_run=True) tries one mini-batch of each stage.",
    "profiler": "print(trainer.profile(train_dl)) tells where the time of some steps goes, and "
    "callbacks=TimingCallback() that of a fit.",
    "log_batches": "A callback logs: callbacks=LogCallback(every_n_batches=50).",
    "find_batch_size": "trainer.find_batch_size(train_dl) searches a batch size.",
    "find_lr": "trainer.find_lr(train_dl) searches a learning rate.",
    "freeze": "A callback freezes weights: callbacks=FreezeCallback('backbone.*', epochs=3).",
    "val_by": "fit(..., val_freq=5) validates after every fifth epoch, Trainer(..., val_every=1000) "
    "after every thousandth optimizer step.",
    "benchmark": "It is PyTorch's: torch.backends.cudnn.benchmark = True.",
    "detect_anomaly": "It is PyTorch's: torch.autograd.set_detect_anomaly(True).",
    "least": "A fit runs the epochs of Trainer(..., epochs=10) unless something stops it.",
    "arrays": "Data are given in a loader: DataLoader(TensorDataset(x, y), batch_size=32).",
    "best": "trainer.load_best() takes the best weights, predict(dl, best=True) uses them.",
    "ema": "The average of the weights is asked for at the trainer: Trainer(..., ema=0.999).",
    "initial_epoch": "The trainer counts its epochs: a second fit goes on, and resume='auto' goes on "
    "with an earlier run.",
}

# Attributes and methods of other trainers, and how the same is done here.
ATTRIBUTES = {
    "evaluate validate score test_model evaluate_model": "trainer.test(test_dl) gives the loss and the "
    "metrics of a loader.",
    "train train_model run_epoch learn fit_loop partial_fit fit_transform start": "trainer.fit(train_dl, "
    "val_dl) trains; trainer.model.train() sets the mode of the model.",
    "eval": "trainer.test(test_dl) gives the loss and the metrics of a loader; trainer.model.eval() sets "
    "the mode of the model.",
    "fit_one_cycle fine_tune fit_flat_cos": "A schedule is given with its optimizer, as in "
    "Optimizer(opt, torch.optim.lr_scheduler.OneCycleLR(opt, max_lr, total_steps), sched_on='step'); "
    "then trainer.fit(train_dl, val_dl).",
    "save save_model save_pretrained": "trainer.save_weights(path) writes the weights; a CheckCallback "
    "saves the whole state while training.",
    "save_checkpoint": "A CheckCallback saves the whole state while training; trainer.save_weights(path) "
    "writes the weights alone.",
    "load load_model load_from_checkpoint restore from_pretrained load_params": "trainer.load_weights(path) "
    "loads weights; trainer.load_checkpoint(path) loads the whole state, to go on training.",
    "save_params save_state": "trainer.save_weights(path) writes the weights; trainer.state_dict() is the "
    "whole state.",
    "summarize model_summary": "trainer.summary(train_dl) lists the layers, shapes and parameters.",
    "compile": "Trainer(model, loss, opt, metrics=...) is given what others give to compile(); "
    "Trainer(..., compile_model=True) compiles the model.",
    "lr_find lr_finder tune tuner find_learning_rate auto_lr_find": "trainer.find_lr(train_dl) searches a "
    "learning rate.",
    "predict_proba predict_classes predict_step get_preds predict_dataloader": "trainer.predict(dataloader) "
    "gives the model's outputs: .softmax(1) makes probabilities of scores, .argmax(1) classes.",
    "freeze unfreeze freeze_to freeze_layers": "model.requires_grad_(False) freezes a model or a layer, and "
    "model.requires_grad_(True) unfreezes it; FreezeCallback('backbone.*', epochs=3) does so for the first "
    "epochs.",
    "to cuda cpu": "Trainer(..., device='cuda') chooses the device; the trainer moves the model and the data to it.",
    "half float bfloat16 autocast scaler": "Trainer(..., precision='bf16') or precision='fp16' trains with "
    "mixed precision.",
    "recorder plot plot_loss plot_losses plot_metrics plot_history plot_metric": "trainer.history.plot() "
    "draws the curves; trainer.history has the values.",
    "show_results confusion_matrix plot_confusion_matrix plot_top_losses interpret": "An InterpretCallback draws the confusion "
    "matrix and keeps the worst samples.",
    "callback_metrics logged_metrics progress_bar_metrics log_history metrics_history results "
    "train_loss val_loss losses": "trainer.history has the values of all epochs, for example "
    "trainer.history['val']['loss'][-1].",
    "current_epoch epoch epoch_idx epochs_done": "trainer.init_epoch is the index of the next epoch, and the "
    "hooks of an epoch are given epoch_idx.",
    "epochs num_epochs n_epochs": "trainer.max_epochs is the total number of epochs.",
    "global_step step_count iteration num_steps": "trainer.progress.num_steps counts the optimizer steps.",
    "best_model_path best_model_score best_model best_score checkpoint_callback best_metric best_epoch": "trainer.load_best() takes the best weights that a CheckCallback has kept; its best state is "
    "trainer.run_dir / 'best.ckpt'.",
    "early_stopping_callback early_stopping": "EarlyStopCallback('loss', patience=5) stops early; "
    "trainer.stop_reason says why a fit has stopped.",
    "should_stop stop_training": "trainer.stop('reason') ends a fit after the present mini-batch.",
    "state status": "trainer.progress says how far the run is, trainer.stage what runs now, and "
    "trainer.state_dict() is the whole state.",
    "logger_connector loggers writer tensorboard": "trainer.logger is the writer of TensorBoard, once a "
    "LogCallback logs.",
    "log_dir logdir save_dir checkpoint_dir default_root_dir ckpt_dir out_dir": "trainer.run_dir is the folder "
    "of the run.",
    "optimizer optimizers optim optimiser": "trainer.opt has the optimizers: trainer.opt[0].",
    "lr learning_rate get_lr get_last_lr current_lr": "trainer.opt.get_current_lr() gives the learning rates.",
    "scheduler schedulers lr_scheduler lr_schedulers lr_scheduler_configs": "trainer.opt[0].scheduler is the "
    "schedule of the first optimizer.",
    "criterion loss_func loss_function": "The loss function is loss_fn; loss(model_out, batch_y) also trains.",
    "net network module lightning_module wrapped_model pl_module unwrap_model": "trainer.model is the model.",
    "add_callback add_cb remove_callback callback cbs": "trainer.callbacks is a list: "
    "trainer.callbacks.append(callback).",
    "log log_dict log_metrics self_log": "trainer.record('name', value), in a step "
    "self.record('name', value), records a number.",
    "manual_backward": "self.backward(loss) adds the gradients.",
    "zero_grad optimizer_step toggle_optimizer clip_gradients": "self.optimize() steps, then drops the "
    "gradients; a GradClipCallback clips them.",
    "hparams save_hyperparameters hyperparameters config": "trainer.hyper_params has what "
    "Trainer(..., hyper_params={...}) was given.",
    "dls train_dataloader train_dataloaders val_dataloader val_dataloaders test_dataloaders train_loader "
    "val_loader train_dl val_dl datamodule": "The trainer keeps no loaders: they are given to fit and test.",
    "to_onnx to_torchscript onnx_export export_model": "trainer.export(path) writes the model as a program, "
    "trainer.export(path, format='onnx') for ONNX.",
    "profiler profile_step": "trainer.profile(train_dl) tells where the time of some steps goes.",
    "fast_dev_run": "Trainer(..., dry_run=True) tries one mini-batch of each stage.",
    "ema_model averaged_model swa_model": "Trainer(..., ema=0.999) averages the weights: then trainer.model has "
    "the average outside of training passes, trainer.ema gets at both.",
    "save_best save_best_model restore_best restore_best_weights load_best_model": "A CheckCallback keeps the "
    "best weights; trainer.load_best() takes them, then trainer.save_weights(path) writes them.",
    "scale_batch_size auto_scale_batch_size": "trainer.find_batch_size(train_dl) searches a batch size.",
    "global_rank local_rank is_global_zero is_main_process rank": "trainer.main_process says whether this "
    "process prints and writes.",
}

# Classes and functions of other packages, and what they are here.
EXPORTED = {
    "ModelCheckpoint Checkpoint SaveModelCallback CheckpointCallback CheckpointHandler BackupAndRestore "
    "BestCheckpoint": "CheckCallback('loss') keeps checkpoints and the best weights.",
    "EarlyStopping EarlyStoppingCallback EarlyStopper EarlyStop":
    "EarlyStopCallback('loss', patience=5) stops early; CheckCallback('loss', patience=5) keeps the best "
    "weights, too.",
    "Learner LightningModule Model Module Sequential NeuralNet NeuralNetClassifier Engine Accelerator "
    "LightningTrainer create_supervised_trainer ModelTrainer":
    "Trainer(model, loss, opt) trains a torch.nn.Module.",
    "TrainingArguments Config": "The arguments are given to Trainer(model, loss, opt, ...).",
    "LearningRateFinder LRFinder LRFind": "trainer.find_lr(train_dl) searches a learning rate.",
    "LearningRateMonitor TensorBoard TensorBoardLogger TensorBoardCallback SummaryWriter":
    "LogCallback() logs metrics and learning rates for TensorBoard.",
    "WandbLogger WandbCallback MLFlowLogger MLflowCallback CometLogger NeptuneLogger Tracker":
    "TrackerCallback sends a run to Weights & Biases or MLflow.",
    "CSVLogger": "CheckCallback and RunRecordCallback write metrics.csv, and history.to_csv(path) writes a table.",
    "ProgressBar RichProgressBar TQDMProgressBar ProgressCallback ProgbarLogger":
    "ConsoleCallback shows the training, and every trainer has one.",
    "GradientClipping GradientClip GradientClipCallback ClipGradient":
    "GradClipCallback(1.0, norm_type=2) clips gradients.",
    "LearningRateScheduler ReduceLROnPlateau LRScheduler LRSchedulerCallback OneCycleLR OneCycle "
    "CosineAnnealingLR StepLR OneCycleScheduler":
    "A schedule of torch.optim.lr_scheduler is given with its optimizer: Optimizer(opt, scheduler).",
    "Adam AdamW SGD RMSprop LBFGS Adagrad": "Optimizers are those of torch.optim.",
    "cross_entropy CrossEntropyLoss mse_loss MSELoss BCELoss BCEWithLogitsLoss CrossEntropyLossFlat":
    "Loss functions are those of torch.nn and torch.nn.functional.",
    "seed_everything manual_seed set_random_seed seed_all": "set_seed(42) seeds everything.",
    "DataLoader DataLoaders Dataset TensorDataset LightningDataModule DataModule DataBunch random_split":
    "Data are given in loaders of torch.utils.data.",
    "ConfusionMatrix ClassificationInterpretation Interpretation":
    "InterpretCallback draws the confusion matrix and keeps the worst samples.",
    "ModelEma ModelEmaV2 ModelEmaV3 EMACallback EMAWeightAveraging WeightAveraging "
    "ExponentialMovingAverage AveragedModel": "Trainer(..., ema=0.999) averages the weights.",
    "StochasticWeightAveraging SWA SWALR": "AveragedModel and SWALR of torch.optim.swa_utils average "
    "weights over epochs, in the hook on_after_epoch: see docs/weights.md.",
    "Profiler PyTorchProfiler SimpleProfiler AdvancedProfiler profile": "trainer.profile(train_dl) tells where "
    "the time of some steps goes, and TimingCallback that of a fit.",
    "Timer": "Trainer(..., max_time='1h30m') ends a fit after that time; TimingCallback measures where "
    "it goes.",
    "ModelSummary RichModelSummary summary summarize": "trainer.summary(train_dl) lists the layers, shapes and "
    "parameters.",
    "BatchSizeFinder": "trainer.find_batch_size(train_dl) searches a batch size.",
    "Tuner": "trainer.find_lr(train_dl) searches a learning rate, "
    "trainer.find_batch_size(train_dl) a batch size.",
    "GradientAccumulationScheduler GradientAccumulation": "Trainer(..., grad_accumulate=4) makes one step for "
    "several mini-batches.",
    "GradientNorm GradNorm": "GradNormCallback() records the norm of the gradients.",
    "PyTorchLightningPruningCallback OptunaPruningCallback PruningCallback TFKerasPruningCallback Pruning "
    "FastAIPruningCallback": "PruneCallback(trial, 'accuracy') ends trials of Optuna.",
    "TerminateOnNaN TerminateOnNaNCallback TerminateOnNan": "A loss that is NaN ends a fit: "
    "Trainer(..., on_nan='stop') is the default.",
    "ShortEpochCallback": "Trainer(..., limit_train_batches=0.1) shortens the epochs.",
    "SAM": "A recipe has it: docs/recipes/sam.md.",
    "DeviceStatsMonitor GPUStatsMonitor": "trainer.record('name', value), in a hook of a callback, records a "
    "number; trainer.profile(train_dl) tells where the time goes.",
    "BackboneFinetuning BaseFinetuning FreezeUnfreeze FreezeLayers Freeze":
    "FreezeCallback('backbone.*', epochs=3) freezes weights for the first epochs.",
    "get_parameter_groups param_groups_weight_decay param_groups_layer_decay parameter_groups":
    "param_groups(model, {'backbone.*': {'lr': 1e-4}}, weight_decay=0.05) makes groups by names.",
    "LambdaCallback CallbackHandler TrainerCallback": "Subclass Callback and define the hooks.",
}  # fmt: skip

# What other libraries call the functions of deepepochs.metrics.
METRICS = {
    "Accuracy acc accuracy_score CategoricalAccuracy SparseCategoricalAccuracy BinaryAccuracy "
    "MulticlassAccuracy categorical_accuracy top1": "accuracy",
    "F1 F1Score f1_score F1_score BinaryF1Score MulticlassF1Score": "f1",
    "FBeta FBetaScore fbeta_score": "fbeta",
    "Precision precision_score MulticlassPrecision BinaryPrecision": "precision",
    "Recall recall_score MulticlassRecall BinaryRecall sensitivity": "recall",
    "ConfusionMatrix confmat conf_mat": "confusion_matrix",
}
# What other libraries call the values of our arguments.
VALUES = {
    "16 16-mixed 16-true float16 half amp true": "fp16",
    "bf16-mixed bf16-true bfloat16": "bf16",
    "32 32-true float32 full fp32 none false": "no",
    "minimize minimum lower less smaller -1": "min",
    "maximize maximum higher more greater 1": "max",
    "validation valid eval evaluate test": "val",
    "training fit": "train",
    "raise error abort": "stop",
    "warning": "warn",
    "skip none false": "ignore",
    "average avg": "mean",
    "all exact": "tensor",
}
# Losses that other libraries take as texts, and the functions of torch.nn.functional.
LOSSES = {
    "ce crossentropy cross_entropy categorical_crossentropy sparse_categorical_crossentropy "
    "crossentropyloss cross_entropy_loss softmax_cross_entropy": "cross_entropy",
    "bce binary_crossentropy binary_cross_entropy bceloss": "binary_cross_entropy",
    "bce_with_logits bcewithlogits bcewithlogitsloss": "binary_cross_entropy_with_logits",
    "mse mean_squared_error mseloss l2": "mse_loss",
    "mae mean_absolute_error l1 l1loss": "l1_loss",
    "nll nllloss": "nll_loss",
    "huber": "huber_loss",
    "kl kl_divergence kld": "kl_div",
}
OF_TORCHMETRICS = (
    "AUROC AUC auc auroc roc_auc roc_auc_score AveragePrecision MeanSquaredError MeanAbsoluteError mse mae "
    "rmse MSE MAE RMSE R2Score r2 r2_score Metric MetricCollection MeanMetric JaccardIndex IoU iou dice Dice "
    "Perplexity perplexity top5 top_k_accuracy mean_squared_error mean_absolute_error MCC kappa"
)


# Its classes of numbers, which need no further argument.
OBJECTS = {
    "MeanSquaredError mse MSE mean_squared_error": "MeanSquaredError()",
    "rmse RMSE": "MeanSquaredError(squared=False)",
    "MeanAbsoluteError mae MAE mean_absolute_error": "MeanAbsoluteError()",
    "R2Score r2 r2_score": "R2Score()",
}


def advice_on_argument(name: str, known: Sequence[str]) -> str:
    """Say what to write for an argument that is not among the ``known`` ones of a function."""
    meanings = [ours for ours, others in MEANT.items() if name == ours or name in others.split()]
    meant = [ours for ours in meanings if ours in known]
    if meant:
        return f"Did you mean {SHOWN.get(meant[0], repr(meant[0]))}?"
    explained = [HOW[ours] for ours in meanings if ours in HOW]
    if explained:
        return explained[0]
    return did_you_mean(name, known) or f"Its arguments are {', '.join(known)}."


def advice_on_attribute(name: str) -> str | None:
    """Say how to do what an attribute of another library's trainer does; ``None`` if unknown."""
    return _look_up(name, ATTRIBUTES)


def advice_on_export(name: str, known: Iterable[str]) -> str | None:
    """Say what another package's class or function is here; ``None`` if unknown."""
    told = _look_up(name, EXPORTED) or advice_on_metric(name)
    return told or did_you_mean(name, known, 0.8) or None


def advice_on_metric(name: str) -> str | None:
    """Say where the metric is that a name means; ``None`` if unknown."""
    ours = name if name in METRICS.values() else metric_meant(name)
    if ours is not None:
        return f"Write: from deepepochs.metrics import {ours}."
    if name in OF_TORCHMETRICS.split():
        return "torchmetrics has it: give its object or function as a metric."
    return None


def advice_on_metric_name(name: str, known: Sequence[str]) -> str:
    """Say what to give for a name that is not among the ``known`` metrics of ours."""
    plain, _, average = name.rpartition("_")
    if name == "loss":
        return "The loss is always recorded: leave it out."
    if name in OF_TORCHMETRICS.split():
        ours = _look_up(name, OBJECTS)
        return f"torchmetrics has it: give {f'torchmetrics.{ours}' if ours else 'its object or function'}."
    if average == "macro" and f"macro_{plain}" in known:
        return f"Did you mean {f'macro_{plain}'!r}?"
    if plain in known and average in ("micro", "macro", "weighted", "binary"):
        return f"Give rename({name!r})(functools.partial({plain}, average={average!r}))."
    ours = metric_meant(name)
    near = f"Did you mean {ours!r}?" if ours in known else did_you_mean(name.lower(), known)
    names = ", ".join(map(repr, known))
    return f"{near} The names are {names}; give any other metric as a function.".strip()


def metric_meant(name: str) -> str | None:
    """Give our name of a metric, by its name in another library; ``None`` if unknown."""
    return _look_up(name, METRICS)


def value_meant(value: object, choices: Sequence[str]) -> str:
    """Ask, in a sentence, whether one of the choices is meant; an empty text if none is near."""
    name = str(value).lower().removeprefix("torch.")
    meant = [ours for others, ours in VALUES.items() if name in others.split() and ours in choices]
    near = meant[0] if meant else nearest(name, choices)
    return "" if near is None else f" Did you mean {near!r}?"


def loss_meant(name: str) -> str:
    """Give the code of the loss function that a text is likely to mean."""
    from torch.nn import functional

    ours = _look_up(name.lower(), LOSSES)
    every = [one for one in dir(functional) if one.endswith(("loss", "cross_entropy"))]
    function = ours or nearest(name.lower(), every) or "cross_entropy"
    return f"F.{function} (from torch.nn import functional as F)"


def optimizer_meant(name: str) -> str:
    """Give the code that makes the optimizer that a text is likely to mean."""
    from torch import optim

    by_lower = {one.lower(): one for one in dir(optim) if one[0].isupper()}
    found = by_lower.get(name.lower().replace("_", ""), "Adam")
    return f"torch.optim.{found}(model.parameters(), lr={0.1 if found == 'SGD' else '1e-3'})"


def _look_up(name: str, table: Mapping[str, str]) -> str | None:
    return next((told for names, told in table.items() if name in names.split()), None)
