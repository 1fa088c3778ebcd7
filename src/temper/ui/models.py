"""Models of runs to talk to: opened when they are first asked, the one that waited longest closed for a new one."""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from temper.errors import Fault, TemperError
from temper.runs import finished_models, stage_model
from temper.serve.protocol import Defaults
from temper.ui.library import Library, id_of

if TYPE_CHECKING:
    from temper.serve.service import Service

MOST_OPEN = 2  # side by side on the same question
ALONE = "model"  # what stands for a stage where a directory is a model
CAPACITY = 64  # replies of one model at once


class Models:
    """Opens a model's service on demand. Use as a context; leaving it closes them."""

    def __init__(self, directories: Sequence[Path] = ()) -> None:
        """`directories` hold models that no run shown here made."""
        self.directories = {id_of(path.resolve()): path for path in directories}
        self._lock = threading.Lock()
        self._open: OrderedDict[tuple[Path, str], tuple[Service, contextlib.ExitStack]] = OrderedDict()

    def __enter__(self) -> Models:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].close()

    def all(self, library: Library) -> list[dict[str, str]]:
        """Every model there is to talk to: `run` is the number of its run, or of its directory."""
        found = [{"run": number, "name": path.resolve().name, "stage": ALONE}
                 for number, path in self.directories.items()]  # fmt: skip
        for number, path in library.paths().items():
            found += [{"run": number, "name": path.name, "stage": stage} for stage in self.names(path)]
        return found

    def of(self, number: str, stage: str, library: Library) -> Service:
        """The model of a stage of a run, or of a directory, by number. Raises as `service`, and Unknown."""
        if number in self.directories:
            from temper.runs import resolve_model

            return self._service(resolve_model(str(self.directories[number])), self.directories[number].resolve().name)
        return self.service(library.path(number), stage)

    def names(self, run: Path) -> list[str]:
        """The stages of a run that finished a model; [] where it cannot be told."""
        try:
            return list(finished_models(run))
        except TemperError:
            return []

    def service(self, run: Path, stage: str) -> Service:
        """Takes as long as loading does. Raises TemperError for a stage without a model, or a damaged one."""
        return self._service(stage_model(run, stage), stage)

    def _service(self, path: Path, stage: str) -> Service:
        from temper.serve.service import open_service  # torch

        with self._lock:
            key = (path, stage)
            if key not in self._open:
                while len(self._open) >= MOST_OPEN:
                    self._close_one()
                stack = contextlib.ExitStack()
                service = stack.enter_context(
                    open_service(
                        path, stage, Defaults(temperature=0.6, top_p=0.95), "tags", CAPACITY, lambda text: None
                    )
                )
                self._open[key] = service, stack
            self._open.move_to_end(key)
            return self._open[key][0]

    def _close_one(self) -> None:
        """Close the one that was asked longest ago and is idle."""
        for key, (service, stack) in self._open.items():
            if service.batcher.load == 0:
                del self._open[key]
                stack.close()
                return
        raise TemperError(Fault("two models are answering already", fix="wait for one, or stop it"))
