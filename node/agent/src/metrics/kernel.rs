//! Counters and maps of the kernel, read when somebody asks.

use heddle_abi::{DIRECTION_EGRESS, DropReason, MetricSlot};
use heddle_datapath::Datapath;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;
use std::sync::Arc;

/// Reads the datapath at each scrape.
pub(super) struct Kernel {
    datapath: Arc<dyn Datapath>,
}

impl Kernel {
    pub(super) fn new(datapath: Arc<dyn Datapath>) -> Self {
        Self { datapath }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Kernel")
    }
}

const fn direction_label(direction: u8) -> &'static str {
    if direction == DIRECTION_EGRESS {
        "EGRESS"
    } else {
        "INGRESS"
    }
}

impl Collector for Kernel {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let counters = self.datapath.metrics();
        let maps = self.datapath.map_use();
        for (what, problem) in [
            ("counters", counters.as_ref().err()),
            ("map use", maps.as_ref().err()),
        ] {
            if let Some(problem) = problem {
                tracing::warn!(what, %problem, "metrics are incomplete");
            }
        }
        let incomplete = i64::from(counters.is_err()) + i64::from(maps.is_err());
        encoder
            .encode_descriptor(
                "heddle_datapath_read_errors",
                "Parts of the datapath that could not be read for this scrape",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&incomplete)?;
        if let Ok(counters) = counters {
            encode_counters(&mut encoder, &counters)?;
        }
        if let Ok(maps) = maps {
            let mut pressure = encoder.encode_descriptor(
                "cilium_bpf_map_pressure",
                "Fill of a map, 1 is full",
                None,
                MetricType::Gauge,
            )?;
            for map in &maps {
                // Ratios need no more than a float's precision.
                #[allow(clippy::cast_precision_loss)]
                let fill = if map.max == 0 {
                    0.0
                } else {
                    map.entries as f64 / map.max as f64
                };
                pressure
                    .encode_family(&[("map_name", map.name.as_str())])?
                    .encode_gauge(&fill)?;
            }
            let mut capacity = encoder.encode_descriptor(
                "heddle_bpf_map_entries",
                "Entries in a map",
                None,
                MetricType::Gauge,
            )?;
            for map in &maps {
                capacity
                    .encode_family(&[("map_name", map.name.as_str())])?
                    .encode_gauge(&i64::try_from(map.entries).unwrap_or(i64::MAX))?;
            }
        }
        Ok(())
    }
}

fn encode_counters(
    encoder: &mut DescriptorEncoder,
    counters: &[((u8, u8), MetricSlot)],
) -> Result<(), fmt::Error> {
    type Count = fn(&MetricSlot) -> u64;
    let packets: Count = |slot| slot.packets;
    let bytes: Count = |slot| slot.bytes;
    for (name, help, count) in [
        ("cilium_drop_count", "Packets dropped", packets),
        ("cilium_drop_bytes", "Bytes dropped", bytes),
    ] {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((number, direction), slot) in counters {
            // Numbers below 130 count things that are no drops (reference 3.8).
            let Some(reason) = DropReason::from_number(*number) else {
                continue;
            };
            let labels = [
                ("reason", reason.description()),
                ("direction", direction_label(*direction)),
            ];
            metric
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&count(slot), None)?;
        }
    }
    for (name, help, count) in [
        ("cilium_forward_count", "Packets forwarded", packets),
        ("cilium_forward_bytes", "Bytes forwarded", bytes),
    ] {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for ((_, direction), slot) in counters.iter().filter(|((number, _), _)| *number == 0) {
            metric
                .encode_family(&[("direction", direction_label(*direction))])?
                .encode_counter::<NoLabelSet, _, u64>(&count(slot), None)?;
        }
    }
    Ok(())
}
