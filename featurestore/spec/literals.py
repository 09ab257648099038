"""The words that rules and engines are chosen by."""

from typing import Literal

Strategy = Literal["stratified", "stratified_group"]


FoldRule = Literal["sklearn", "hash"]


Growth = Literal["extend", "new"]


Balance = Literal["greedy", "optimal"]


Engine = Literal["duckdb", "pyspark"]


Leakage = Literal["refuse", "warn"]


Storage = Literal["float32", "float16", "bfloat16"]


LabelRule = Literal["dominant", "any_passing"]


AbsentCoverage = Literal["refuse", "zero"]


Edge = Literal["keep", "drop"]
