"""Every benchmark by its name, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Final

from interop.bench import (
    coap_exchange_cpu_us,
    edhoc_flood_cpu_us,
    edhoc_responder_cpu_us,
    headend_idle_meter_bytes,
    mesh_stretch_p90,
    meterd_dump_s,
    meterd_idle_cpu_share,
    meterd_pss_mib,
    meterd_start_s,
    meterd_street_kib,
    oscore_pair_cpu_us,
    report_payload_bytes,
    report_udp_cpu_us,
    report_wire_bytes,
    simulated_day_cpu_ms,
    topology_alternates_ms,
    topology_rebuild_ms,
    topology_update_ms,
)
from interop.bench.figure import Figure, Size

MODULES: Final[Mapping[str, ModuleType]] = {
    module.NAME: module
    for module in (
        report_payload_bytes,
        report_wire_bytes,
        report_udp_cpu_us,
        oscore_pair_cpu_us,
        coap_exchange_cpu_us,
        edhoc_responder_cpu_us,
        edhoc_flood_cpu_us,
        headend_idle_meter_bytes,
        meterd_pss_mib,
        meterd_start_s,
        meterd_idle_cpu_share,
        meterd_street_kib,
        meterd_dump_s,
        topology_update_ms,
        topology_alternates_ms,
        topology_rebuild_ms,
        mesh_stretch_p90,
        simulated_day_cpu_ms,
    )
}

BENCHMARKS: Final[Mapping[str, Callable[[Size], Figure]]] = {
    name: module.measure for name, module in MODULES.items()
}
