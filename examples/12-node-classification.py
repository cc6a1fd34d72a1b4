"""Example 12: node classification with a graph neural network (needs torch_geometric).

Zachary's karate club: 34 members and their friendships. The club broke up; given the
group of four members, one of each group, the network tells the groups of the others.
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GCNConv

from deepepochs import Trainer, set_seed

set_seed(1)
graph = KarateClub()[0]
others = (~graph.train_mask).nonzero().flatten()
val_mask, test_mask = torch.zeros(2, graph.num_nodes, dtype=torch.bool)
val_mask[others[::3]] = True  # a third of the others
test_mask[others] = True
test_mask &= ~val_mask


# A loader yields mini-batches, and here the whole graph is one. The last element is the
# target: a pair of all labels and of the mask of the nodes that count. All before it is input.
def loader(mask):
    return [(graph, graph.x, (graph.y, mask))]


class GCN(nn.Module):
    def __init__(self, num_features, num_classes):
        super().__init__()
        self.conv1 = GCNConv(num_features, 16)
        self.conv2 = GCNConv(16, num_classes)

    def forward(self, graph, features):
        hidden = F.dropout(self.conv1(features, graph.edge_index).relu(), 0.2, self.training)
        return self.conv2(hidden, graph.edge_index)


# Loss and metric get the model's output and that pair.
def masked_loss(scores, targets):
    labels, mask = targets
    return F.cross_entropy(scores[mask], labels[mask])


def accuracy(scores, targets):
    labels, mask = targets
    return (scores.argmax(1) == labels)[mask].float().mean()


model = GCN(graph.num_features, num_classes=4)
opt = torch.optim.Adam(model.parameters(), lr=0.01, weight_decay=5e-4)
trainer = Trainer(model, masked_loss, opt, epochs=60, metrics=[accuracy])
trainer.fit(loader(graph.train_mask), loader(val_mask), val_freq=10)
trainer.test(loader(test_mask))
