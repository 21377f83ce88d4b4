import torch

# Two threads on tensors of ten numbers wait for each other most of the time: on a busy machine these tests took eight times as long.
torch.set_num_threads(1)
