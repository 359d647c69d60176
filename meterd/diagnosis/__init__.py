"""What a meter finds when it looks at itself."""

from __future__ import annotations

from meterd.diagnosis.part import SelfDiagnosis

__all__ = ["SelfDiagnosis"]
