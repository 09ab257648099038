"""The command that a run records: its arguments, and what a launcher left in the environment."""

import pytest

from train.tracking.provenance import command

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "LOCAL_WORLD_SIZE": "2"}
ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_USE_CPU": "False"}


@pytest.mark.parametrize(
    ("environ", "launched"),
    [
        ({}, "python"),
        ({"OMP_NUM_THREADS": "2", "PATH": "/bin"}, "OMP_NUM_THREADS=2 python"),
        ({"CUDA_VISIBLE_DEVICES": "1, 2"}, "CUDA_VISIBLE_DEVICES='1, 2' python"),
        (ACCELERATE, "accelerate launch"),
        ({**ACCELERATE, "ACCELERATE_USE_CPU": "True"}, "accelerate launch --cpu"),
        ({**ACCELERATE, "ACCELERATE_MIXED_PRECISION": "bf16"},
         "accelerate launch --mixed_precision bf16"),
        ({**ACCELERATE, **TORCHRUN, "WORLD_SIZE": "2"},
         "accelerate launch --multi_gpu --num_processes 2"),
        ({**ACCELERATE, **TORCHRUN, "WORLD_SIZE": "4"},
         "accelerate launch --multi_gpu --num_processes 4 --num_machines 2"),
        ({**TORCHRUN, "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "1"},
         "ACCELERATE_USE_CPU=1 torchrun --nproc_per_node 2"),
        ({**TORCHRUN, "WORLD_SIZE": "4"}, "torchrun --nnodes 2 --nproc_per_node 2"),
        ({"SLURM_PROCID": "0", "WORLD_SIZE": "2"}, "srun --ntasks 2 python"),
        ({"SLURM_PROCID": "0"}, "python"),
    ],
)  # fmt: skip
def test_the_launcher_is_known_by_its_variables(environ: dict[str, str], launched: str):
    assert command(["fold=4"], environ) == f"{launched} train/probe.py fold=4"


def test_a_command_is_quoted_for_the_shell():
    assert command(["sweep.learning_rate=[1, 2]"], {}, "/my code/probe.py") == (
        "python '/my code/probe.py' 'sweep.learning_rate=[1, 2]'"
    )


@pytest.mark.slow
def test_no_secret_is_recorded():
    uri = "tracking.uri=http://me:secret@server"
    assert "secret" not in command([uri], {})
