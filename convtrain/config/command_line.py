"""What was typed after ``train.py``, as Hydra reads it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from convtrain.config.messages import brief
from convtrain.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@dataclass(frozen=True)
class CommandLine:
    """A command, taken apart."""

    overrides: list[str] = field(default_factory=list)
    config_dir: Path = CONFIGS
    config_name: str = "train"
    extra_dir: Path | None = None
    multirun: bool = False
    trains: bool = True  # false for --help, --cfg and the like

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> "CommandLine":
        """Read arguments; unknown options end the program with Hydra's usage.

        Raises:
            ConfigError: a folder does not exist, or a pickled job is to run again.
        """
        args = get_args_parser().parse_args(list(arguments))
        shows = args.help or args.hydra_help or args.cfg or args.info or args.shell_completion
        if args.experimental_rerun is not None:
            raise ConfigError(
                f"--experimental-rerun={args.experimental_rerun}: a pickle can run any code; "
                f"go on with a run by resume=RUN_DIRECTORY"
            )
        for option in ("config_path", "config_dir"):
            folder = getattr(args, option)
            if folder is not None and not Path(folder).is_dir():
                raise ConfigError(f"--{option.replace('_', '-')}={folder}: no such folder")
        return cls(
            overrides=args.overrides,
            config_dir=CONFIGS if args.config_path is None else Path(args.config_path).resolve(),
            config_name=args.config_name or "train",
            extra_dir=Path(args.config_dir).resolve() if args.config_dir else None,
            multirun=args.multirun or "hydra.mode=MULTIRUN" in args.overrides,
            trains=not shows,
        )

    @property
    def folders(self) -> list[Path]:
        """Where configuration files are looked for, first the ones that win."""
        return [folder for folder in (self.extra_dir, self.config_dir) if folder]

    def parsed(self, mistakes: list[str]) -> list[Override]:
        """Return the overrides that can be read; ``mistakes`` gains a line for each other one."""
        parser = OverridesParser.create()
        parsed = []
        for text in self.overrides:
            try:
                override = parser.parse_override(text)
            except (HydraException, RecursionError):
                override = None
            if override is not None and override.key_or_group:
                parsed.append(override)
            else:
                mistakes.append(
                    f"{brief(text) or repr(text)}: cannot be read as key=value; "
                    f"quote values with spaces: 'k=\"v\"'"
                )
        return parsed
