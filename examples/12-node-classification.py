"""Example 12: classify the nodes of a graph with torch_geometric.

Zachary's karate club has 34 members in four groups; the edges are friendships. Only one member of
each group is known. Expect a test accuracy of about 0.8 for the others.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GCNConv

from deepepochs import Trainer, set_seed

set_seed(1)

# 1. Data. A third of the unknown members is for validation, the others are for the test.
graph = KarateClub()[0]
unknown = (~graph.train_mask).nonzero().flatten()
val_mask, test_mask = torch.zeros(2, graph.num_nodes, dtype=torch.bool)
val_mask[unknown[::3]] = True
test_mask[unknown] = True
test_mask &= ~val_mask


# 2. A loader is anything that gives mini-batches: here a list, and each is the whole graph. The
#    last item is the target: all labels, and a mask of the nodes that count.
def loader(mask, num_batches=1):
    return [(graph, (graph.y, mask))] * num_batches


class GCN(nn.Module):
    def __init__(self, num_features, num_classes):
        super().__init__()
        self.conv1 = GCNConv(num_features, 16)
        self.conv2 = GCNConv(16, num_classes)

    def forward(self, graph):
        hidden = self.conv1(graph.x, graph.edge_index).relu()
        return self.conv2(F.dropout(hidden, 0.2, self.training), graph.edge_index)


# 3. Loss and metric get the output of the model and that target.
def masked_loss(scores, targets):
    labels, mask = targets
    return F.cross_entropy(scores[mask], labels[mask])


def accuracy(scores, targets):
    labels, mask = targets
    return (scores.argmax(1) == labels)[mask].float().mean()


# 4. Six epochs of ten steps
model = GCN(graph.num_features, num_classes=4)
opt = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
trainer = Trainer(model, masked_loss, opt, epochs=6, metrics=[accuracy])
trainer.fit(loader(graph.train_mask, num_batches=10), loader(val_mask))
results = trainer.test(loader(test_mask))
print(f"test accuracy: {results['accuracy']:.4f}")
