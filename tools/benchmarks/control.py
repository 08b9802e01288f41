"""Kang et al.'s study in plain PyTorch, as a control of ours: four samplers, five classifiers, on npz data."""

import argparse
import collections
import csv
import itertools
import pathlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from keras_lt.checkpoints import write_history
from keras_lt.metrics import shot_accuracy
from keras_lt.samplers import probability_table
from tools.benchmarks.torch_resnet import NETS, ResNet

SAMPLERS = ("instance_balanced", "class_balanced", "square_root", "progressive")
CLASSIFIERS = ("joint", "ncm", "crt", "tau_norm", "lws")
PEAK, DECAY, MOMENTUM, BATCH = 0.1, 5e-4, 0.9, 128
STAGE_TWO_EPOCHS = {"crt": 10, "lws": 10}
PADDING = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the command line."""
    parser.add_argument("--data_dir", default="", help="folder with train.npz, val.npz and test.npz, grey images")
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        help="no study: files of this command's rows, and runs.csv of tools.reproduce --table=fig1, as one table",
    )
    parser.add_argument("--epochs", type=int, nargs="+", default=[12], help="of stage one; each is a study of its own")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS, choices=SAMPLERS)
    parser.add_argument("--augmentations", nargs="+", default=["none"], choices=("none", "crop"))
    parser.add_argument("--draws", nargs="+", default=["independent"], choices=("independent", "cycle"))
    parser.add_argument("--rates", nargs="+", default=["one_cycle"], choices=("one_cycle", "cosine"))
    parser.add_argument("--device", default="cpu", help="of PyTorch, such as cuda")
    parser.add_argument("--output", default="", help="a CSV file that gets a row per classifier; empty writes none")


def run(arguments: argparse.Namespace) -> None:
    """Every study, one after the other, as a row per sampler; or the rows of finished ones."""
    if arguments.beside:
        print(beside(map(pathlib.Path, arguments.beside)))
        return
    data = _read(pathlib.Path(arguments.data_dir), arguments.device)
    choices = (arguments.rates, arguments.augmentations, arguments.draws, arguments.epochs, range(arguments.seeds))
    rows = []
    for rate, augmentation, draws, epochs, seed in itertools.product(*choices):
        print(f"{epochs} epochs, {rate} rate, augmentation {augmentation}, {draws} draws, seed {seed}: all (few)")
        print(f"{'':18}{'train':>8}" + "".join(f"{name:>14}" for name in CLASSIFIERS))
        for sampler in arguments.samplers:
            stage = {"sampler": sampler, "epochs": epochs, "seed": seed}
            train, scores = _study(data, rate=rate, augmentation=augmentation, draws=draws, **stage)
            cells = [f"{100 * one['all']:.1f} ({100 * one['few']:.1f})" for one in scores.values()]
            print(f"{sampler:18}{100 * train:8.1f}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
            setting = {**stage, "rate": rate, "augmentation": augmentation, "draws": draws, "train": train}
            rows += [{**setting, "classifier": name, **one} for name, one in scores.items()]
            if arguments.output:
                said = [{name: f"{v:.4f}" if isinstance(v, float) else v for name, v in row.items()} for row in rows]
                write_history(arguments.output, said)


def beside(paths: Iterable[pathlib.Path]) -> str:
    """The control's studies and ours as one Markdown table: all (few), in percent, means over seeds.

    Args:
      paths: CSV files, of `run` or of `tools.reproduce --table=fig1`; a row of either says which it is of.
    """
    cells = collections.defaultdict(lambda: collections.defaultdict(list))
    for path in paths:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                ours = "run" in row
                setting = f"ours, {path}" if ours else f"control, {row['rate']}, {row['augmentation']}, {row['draws']}"
                sampler, train = (row["run"], "train_class_mean") if ours else (row["sampler"], "train")
                line = cells[sampler, int(row["epochs"]), setting]
                line[row["classifier"]].append([float(row[name] or "nan") for name in (train, "all", "few")])
    heads = "| sampler | epochs | by | seeds | train | " + " | ".join(CLASSIFIERS) + " |"
    lines = [heads, "|---|---:|---|" + "---:|" * (2 + len(CLASSIFIERS))]
    for (sampler, epochs, setting), of in sorted(cells.items()):
        means = {name: 100 * np.mean(numbers, axis=0) for name, numbers in of.items()}
        shown = [f"{means[name][1]:.1f} ({means[name][2]:.1f})" if name in means else "—" for name in CLASSIFIERS]
        first = next(iter(of))
        lines.append(
            f"| {sampler} | {epochs} | {setting} | {len(of[first])} | {means[first][0]:.1f} | {' | '.join(shown)} |"
        )
    return "\n".join(lines)


def _read(folder: pathlib.Path, device: str) -> dict:
    """Split -> (images float32 [N, 3, S, S] normalised, labels [N]), on the device; and what "black" is then."""
    data, mean, std = {}, 0.0, 1.0
    for split in ("train", "val", "test"):
        with np.load(folder / f"{split}.npz") as arrays:
            pixels, labels = torch.from_numpy(arrays["images"]), torch.from_numpy(arrays["labels"].astype(np.int64))
        images = pixels.to(device, torch.float32) / 255
        if split == "train":
            mean, std = images.mean(), images.std()
        data[split] = ((images - mean) / std)[:, None].expand(-1, 3, -1, -1), labels.to(device)
    return data | {"black": -mean / std}


def _study(data: dict, *, sampler, epochs, seed, rate, augmentation, draws) -> tuple[float, dict[str, dict]]:
    """Accuracy on train, and classifier -> accuracies on test, of one representation."""
    torch.manual_seed(seed)
    images, labels = data["train"]
    counts = torch.bincount(labels)
    net = ResNet(**NETS["resnet8"], classes=len(counts)).to(images.device)
    step = _step(list(net.parameters()), lambda x, y: torch.nn.functional.cross_entropy(net(x), y))
    steps = len(labels) // BATCH
    rows = _rows(labels, sampler=sampler, epochs=epochs, steps=steps, seed=seed, cycle=draws == "cycle")
    rates = _rates(rate, epochs, steps)
    generator = torch.Generator(images.device).manual_seed(seed)
    net.train()
    for batch, peak in zip(rows, rates, strict=True):
        x = images[batch]
        step(_cropped(x, data["black"], generator) if augmentation == "crop" else x, labels[batch], peak)
    net.eval()
    head, net.fc = net.fc, torch.nn.Identity()
    with torch.no_grad():
        features = {
            split: torch.cat([net(part) for part in data[split][0].split(2048)]) for split in ("train", "val", "test")
        }
        kernel, bias = head.weight.T.clone(), head.bias.clone()
    labels_of = {split: data[split][1] for split in features}
    learned = _classifiers(features, labels_of, kernel=kernel, bias=bias, counts=counts, seed=seed)
    train = (features["train"] @ kernel + bias).argmax(1)
    scores = {name: _accuracies(logits(features["test"]), data["test"][1], counts) for name, logits in learned.items()}
    return float((train == labels).float().mean()), scores


def _step(parameters: list, loss_of: Callable) -> Callable:
    """One update by SGD with coupled weight decay: (inputs, labels, learning rate) -> nothing; a graph on a GPU."""
    velocities = [torch.zeros_like(parameter) for parameter in parameters]
    rate = torch.zeros((), device=parameters[0].device)
    static: dict = {}

    def update():
        gradients = list(torch.autograd.grad(loss_of(static["x"], static["y"]), parameters))
        with torch.no_grad():
            torch._foreach_add_(gradients, parameters, alpha=DECAY)
            torch._foreach_mul_(velocities, MOMENTUM)
            torch._foreach_add_(velocities, gradients)
            torch._foreach_sub_(parameters, torch._foreach_mul(velocities, rate))

    def step(x, y, learning_rate):
        rate.fill_(learning_rate)
        if not static:
            static.update(x=x.clone(), y=y.clone(), graph=None)
        static["x"].copy_(x)
        static["y"].copy_(y)
        if rate.device.type != "cuda":
            update()
            return
        if static["graph"] is None:
            static["graph"] = _captured(update, [*parameters, *velocities])
        static["graph"].replay()

    return step


def _captured(update: Callable, state: list):
    """A CUDA graph of an update, for which hundreds of small kernels are launched once; the state stays as it was."""
    before = [one.detach().clone() for one in state]
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            update()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        update()
    with torch.no_grad():
        for one, value in zip(state, before, strict=True):
            one.copy_(value)
    return graph


def _rates(name: str, epochs: int, steps: int) -> Iterator[float]:
    """The learning rate of every step: one cycle up to the peak and down to nothing, or the reference's cosine."""
    total = epochs * steps
    for k in range(total):
        if name == "cosine":
            yield PEAK * (1 + np.cos(np.pi * (k // steps) / epochs)) / 2
        else:
            warm = 0.3 * total
            part = k / warm if k < warm else 1 + (k - warm) / (total - warm)
            yield PEAK * max((1 - np.cos(np.pi * part)) / 2, 1e-4)


def _rows(labels, *, sampler: str, epochs: int, steps: int, seed: int, cycle: bool) -> Iterator:
    """Indices [BATCH] of every step, drawn with the sampler's class probabilities.

    Args:
      cycle: of an epoch, a class's images come in shuffled cycles, each as often as the others; not independently.
    """
    own = labels.cpu().numpy()
    counts, rng = np.bincount(own), np.random.default_rng(seed)
    by_class, starts = np.argsort(own, kind="stable"), np.cumsum(counts) - counts
    for probabilities in probability_table(sampler, counts, epochs):
        size = steps * BATCH
        if sampler == "instance_balanced":
            drawn = rng.permutation(len(own))[:size]
        else:
            classes = rng.choice(len(counts), size, p=probabilities)
            if cycle:
                drawn = np.empty(size, np.int64)
                for one in np.unique(classes):
                    places = np.flatnonzero(classes == one)
                    members = by_class[starts[one] : starts[one] + counts[one]]
                    cycles = [rng.permutation(members) for _ in range(-(-len(places) // counts[one]))]
                    drawn[places] = np.concatenate(cycles)[: len(places)]
            else:
                drawn = by_class[starts[classes] + rng.integers(0, counts[classes])]
        yield from torch.from_numpy(drawn).to(labels.device).reshape(steps, BATCH)


def _cropped(x, black, generator):
    """Padded by four pixels, then cropped at random, each image in its own place."""
    size = x.shape[-1]
    padded = torch.nn.functional.pad(x - black, (PADDING,) * 4) + black
    corners = torch.randint(0, 2 * PADDING + 1, (2, len(x), 1), device=x.device, generator=generator)
    down, right = (corner + torch.arange(size, device=x.device) for corner in corners)
    return padded[torch.arange(len(x), device=x.device)[:, None, None], :, down[:, :, None], right[:, None]].permute(
        0, 3, 1, 2
    )


def _classifiers(features, labels, *, kernel, bias, counts, seed: int) -> dict[str, Callable]:
    """Classifier -> (features [N, D] -> logits [N, C]), learned on train, tau chosen on val."""
    train, own = features["train"], labels["train"]
    centre = train.mean(0)

    def unit(rows):
        return torch.nn.functional.normalize(rows - centre)

    means = torch.zeros_like(kernel.T).index_add_(0, own, unit(train)) / counts[:, None]

    def ncm(rows):
        return 2 * unit(rows) @ means.T - (means**2).sum(1)

    def tau_normalized(tau):
        return lambda rows: rows @ (kernel / kernel.norm(dim=0) ** tau)

    def on_val(logits):
        return (logits(features["val"]).argmax(1) == labels["val"]).float().mean()

    taus = [tau_normalized(tau) for tau in np.arange(0, 2.01, 0.1)]
    fresh = torch.empty_like(kernel).uniform_(-1, 1) / len(kernel) ** 0.5
    crt = [fresh.requires_grad_(), torch.zeros_like(bias).requires_grad_()]
    _fit(lambda rows: rows @ crt[0] + crt[1], crt, train, own, epochs=STAGE_TWO_EPOCHS["crt"], seed=seed)
    scales = torch.ones_like(bias).requires_grad_()
    _fit(lambda rows: scales * (rows @ kernel + bias), [scales], train, own, epochs=STAGE_TWO_EPOCHS["lws"], seed=seed)
    return {
        "joint": lambda rows: rows @ kernel + bias,
        "ncm": ncm,
        "crt": lambda rows: rows @ crt[0] + crt[1],
        "tau_norm": max(taus, key=on_val),
        "lws": lambda rows: scales * (rows @ kernel + bias),
    }


def _fit(logits: Callable, parameters: list, features, labels, *, epochs: int, seed: int):
    """Class-balanced draws of features, the reference's cosine."""
    step = _step(parameters, lambda x, y: torch.nn.functional.cross_entropy(logits(x), y))
    steps = len(labels) // BATCH
    rows = _rows(labels, sampler="class_balanced", epochs=epochs, steps=steps, seed=seed, cycle=False)
    for batch, rate in zip(rows, _rates("cosine", epochs, steps), strict=True):
        step(features[batch], labels[batch], rate)


def _accuracies(logits, labels, counts) -> dict[str, float]:
    """Of all images, and of the classes of each group, whose test images are equally many."""
    predicted, labels, counts = (one.cpu().numpy() for one in (logits.argmax(1), labels, counts))
    accuracies = shot_accuracy(predicted, labels, counts)
    return {name: accuracies[name] for name in ("many", "medium", "few", "all")}
