//! What the HTTP server counts, read when somebody asks: calls in, by workload, and calls out.
//!
//! The series of a workload are there as long as this node has it; so their number is bounded by that of the workloads. The
//! reasons are the words that the log has.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::{
    fault::Reason,
    plugin::wasi_http::{EgressSnapshot, HttpServer, HttpSnapshot, RefusedSnapshot},
};

/// The collector.
pub(super) struct Http(pub Arc<HttpServer>);

/// A workload's namespace and name, and its counts.
type Counted = ((Arc<str>, Arc<str>), HttpSnapshot);

/// A family's name and what it is about.
type About = (&'static str, &'static str);

/// Numbers of one family, each with the label that tells it apart.
type Numbers = Vec<(Option<(&'static str, &'static str)>, u64)>;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Http")
    }
}

impl Collector for Http {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let workloads: Vec<Counted> = self.0.snapshots().into_iter().collect();
        calls_in(&mut encoder, &workloads)?;
        refused(&mut encoder, self.0.refused())?;
        calls_out(&mut encoder, self.0.egress())
    }
}

/// What the requests of each workload came to.
fn calls_in(encoder: &mut DescriptorEncoder<'_>, workloads: &[Counted]) -> fmt::Result {
    let about = ("http_requests", "Requests that found the workload");
    of_each(encoder, MetricType::Counter, about, workloads, |counts| {
        vec![(None, counts.requests)]
    })?;
    let about = (
        "http_responses",
        "Responses that have begun, by the class of their status",
    );
    of_each(encoder, MetricType::Counter, about, workloads, |counts| {
        let classes = CLASSES.into_iter().zip(counts.responses);
        classes.map(|(c, n)| (Some(("code", c)), n)).collect()
    })?;
    let about = ("http_requests_failed", "Requests that failed, by reason");
    of_each(encoder, MetricType::Counter, about, workloads, |counts| {
        let reasons = failures(counts).into_iter();
        reasons.map(|(r, n)| (Some(("reason", r)), n)).collect()
    })?;
    let about = (
        "http_responses_cut",
        "Responses that ended before their end, by whatever went wrong after their head",
    );
    of_each(encoder, MetricType::Counter, about, workloads, |counts| {
        vec![(None, counts.cut)]
    })?;
    let about = (
        "http_fuel",
        "Fuel that requests have used, of components that have any",
    );
    of_each(encoder, MetricType::Counter, about, workloads, |counts| {
        vec![(None, counts.fuel)]
    })?;
    gauges(encoder, workloads)
}

/// Why requests failed. One can fail for two reasons: it was cut because its own body was too large, say.
fn failures(counts: &HttpSnapshot) -> [(&'static str, u64); 8] {
    [
        (Reason::Trapped.as_str(), counts.trapped),
        (Reason::MemoryLimit.as_str(), counts.out_of_memory),
        (Reason::OutOfFuel.as_str(), counts.out_of_fuel),
        (Reason::DeadlineExceeded.as_str(), counts.out_of_time),
        ("NoAnswer", counts.unanswered),
        ("NoFreeInstance", counts.rejected),
        ("BodyTooLarge", counts.too_large),
        ("Stopped", counts.stopped),
    ]
}

fn gauges(encoder: &mut DescriptorEncoder<'_>, workloads: &[Counted]) -> fmt::Result {
    type Number = fn(&HttpSnapshot) -> u64;
    let gauges: [(About, Number); 4] = [
        (
            ("http_requests_in_flight", "Requests that have not ended"),
            |counts| counts.in_flight,
        ),
        (
            (
                "http_requests_waiting",
                "Requests that wait for an instance",
            ),
            |counts| counts.waiting,
        ),
        (
            ("http_instances", "Instances of the component, idle or not"),
            |counts| counts.instances,
        ),
        (
            (
                "http_instances_idle",
                "Instances that are kept for further requests and have none",
            ),
            |counts| counts.idle_instances,
        ),
    ];
    for (about, number) in gauges {
        of_each(encoder, MetricType::Gauge, about, workloads, |counts| {
            vec![(None, number(counts))]
        })?;
    }
    Ok(())
}

/// Requests that were nobody's.
fn refused(encoder: &mut DescriptorEncoder<'_>, counts: RefusedSnapshot) -> fmt::Result {
    let about = (
        "http_requests_refused",
        "Requests that were answered before they had found a workload, by reason",
    );
    let reasons = [
        ("HeadTooLarge", counts.large_head),
        ("NoHost", counts.no_host),
        ("NoRoute", counts.no_route),
        ("Stopping", counts.stopping),
    ];
    let numbers = reasons.map(|(reason, number)| (vec![("reason", reason)], number));
    family(encoder, MetricType::Counter, about, numbers)
}

fn calls_out(encoder: &mut DescriptorEncoder<'_>, counts: EgressSnapshot) -> fmt::Result {
    let counters = [
        (
            (
                "egress_denied",
                "Calls out that no rule of allowedHosts allowed",
            ),
            counts.denied,
        ),
        (
            (
                "egress_prohibited",
                "Calls out to names that led only to blocked addresses",
            ),
            counts.prohibited,
        ),
        (
            (
                "egress_limited",
                "Calls out that found all connections of their workload in use",
            ),
            counts.limited,
        ),
        (
            ("egress_connections", "Connections opened for calls out"),
            counts.connections,
        ),
    ];
    for (about, number) in counters {
        family(encoder, MetricType::Counter, about, [(Vec::new(), number)])?;
    }
    let about = ("egress_connections_open", "Connections open for calls out");
    family(
        encoder,
        MetricType::Gauge,
        about,
        [(Vec::new(), counts.open)],
    )
}

/// Writes a family with numbers of each workload.
fn of_each(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    about: About,
    workloads: &[Counted],
    numbers: impl Fn(&HttpSnapshot) -> Numbers,
) -> fmt::Result {
    let samples = workloads
        .iter()
        .flat_map(|((namespace, workload), counts)| {
            numbers(counts).into_iter().map(move |(label, number)| {
                let mut labels = vec![("namespace", &**namespace), ("workload", &**workload)];
                labels.extend(label);
                (labels, number)
            })
        });
    family(encoder, kind, about, samples)
}

/// Writes a family: counters or gauges.
fn family<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    kind: MetricType,
    (name, help): About,
    samples: impl IntoIterator<Item = (Vec<(&'a str, &'a str)>, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
    for (labels, number) in samples {
        if labels.is_empty() {
            return match kind {
                MetricType::Gauge => ConstGauge::new(number).encode(metric),
                _ => ConstCounter::new(number).encode(metric),
            };
        }
        let sample = metric.encode_family(&labels)?;
        match kind {
            MetricType::Gauge => ConstGauge::new(number).encode(sample)?,
            _ => ConstCounter::new(number).encode(sample)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::*;

    /// Metrics as a scraper reads them: the kind of each family, and the value of each series by its name and labels.
    #[derive(Default)]
    struct Scraped {
        kinds: BTreeMap<String, String>,
        series: BTreeMap<String, u64>,
    }

    #[derive(Debug)]
    struct Given(Vec<Counted>, RefusedSnapshot, EgressSnapshot);

    impl Collector for Given {
        fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
            calls_in(&mut encoder, &self.0)?;
            refused(&mut encoder, self.1)?;
            calls_out(&mut encoder, self.2)
        }
    }

    fn scrape(collector: impl Collector) -> Scraped {
        let mut registry = Registry::with_prefix("washlet");
        registry.register_collector(Box::new(collector));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let mut scraped = Scraped::default();
        for line in text.strip_suffix("# EOF\n").unwrap().lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let before = scraped.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is described twice");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let before = scraped
                    .series
                    .insert(series.to_owned(), value.parse().unwrap());
                assert_eq!(before, None, "{series} is there twice");
                let (family, labels) = series.split_once('{').unwrap_or((series, "}"));
                assert!(labels.ends_with('}'), "{line}");
                let family = family.strip_suffix("_total").unwrap_or(family);
                assert!(scraped.kinds.contains_key(family), "{line}");
            }
        }
        scraped
    }

    fn named(name: &str, counts: HttpSnapshot) -> Counted {
        (("default".into(), name.into()), counts)
    }

    #[test]
    fn every_count_has_its_series() {
        let counts = HttpSnapshot {
            requests: 1,
            trapped: 2,
            out_of_memory: 3,
            out_of_fuel: 19,
            fuel: 24,
            out_of_time: 4,
            unanswered: 5,
            rejected: 6,
            too_large: 7,
            stopped: 8,
            cut: 9,
            responses: [10, 11, 12, 13, 14],
            in_flight: 15,
            waiting: 16,
            instances: 17,
            idle_instances: 18,
            ..HttpSnapshot::default()
        };
        let refused = RefusedSnapshot {
            large_head: 20,
            no_host: 21,
            no_route: 22,
            stopping: 23,
        };
        let workloads = vec![named("a", counts), named("b", HttpSnapshot::default())];
        let none = EgressSnapshot::default();
        let Scraped { kinds, series } = scrape(Given(workloads, refused, none));
        let of_a = |family: &str, label: &str| {
            let name = format!("washlet_{family}{{namespace=\"default\",workload=\"a\"{label}}}");
            *series
                .get(&name)
                .unwrap_or_else(|| panic!("{name}: {series:#?}"))
        };
        assert_eq!(of_a("http_requests_total", ""), 1);
        for (reason, number) in [
            ("Trapped", 2),
            ("MemoryLimit", 3),
            ("OutOfFuel", 19),
            ("DeadlineExceeded", 4),
            ("NoAnswer", 5),
            ("NoFreeInstance", 6),
            ("BodyTooLarge", 7),
            ("Stopped", 8),
        ] {
            let label = format!(",reason=\"{reason}\"");
            assert_eq!(
                of_a("http_requests_failed_total", &label),
                number,
                "{reason}"
            );
        }
        assert_eq!(of_a("http_responses_cut_total", ""), 9);
        assert_eq!(of_a("http_fuel_total", ""), 24);
        for (number, class) in (10..).zip(["1xx", "2xx", "3xx", "4xx", "5xx"]) {
            let label = format!(",code=\"{class}\"");
            assert_eq!(of_a("http_responses_total", &label), number, "{class}");
        }
        for (number, gauge) in (15..).zip([
            "http_requests_in_flight",
            "http_requests_waiting",
            "http_instances",
            "http_instances_idle",
        ]) {
            assert_eq!(of_a(gauge, ""), number, "{gauge}");
            assert_eq!(kinds[&format!("washlet_{gauge}")], "gauge");
        }
        for (number, reason) in (20..).zip(["HeadTooLarge", "NoHost", "NoRoute", "Stopping"]) {
            let name = format!("washlet_http_requests_refused_total{{reason=\"{reason}\"}}");
            assert_eq!(series[&name], number, "{reason}");
        }
        assert_eq!(kinds["washlet_http_requests"], "counter");
    }

    #[test]
    fn calls_out_have_their_series() {
        let out = EgressSnapshot {
            denied: 1,
            prohibited: 2,
            limited: 3,
            connections: 4,
            open: 5,
        };
        let given = Given(Vec::new(), RefusedSnapshot::default(), out);
        let Scraped { kinds, series } = scrape(given);
        for (number, family, kind) in [
            (1, "egress_denied", "counter"),
            (2, "egress_prohibited", "counter"),
            (3, "egress_limited", "counter"),
            (4, "egress_connections", "counter"),
            (5, "egress_connections_open", "gauge"),
        ] {
            let end = if kind == "counter" { "_total" } else { "" };
            let found = series.get(&format!("washlet_{family}{end}"));
            assert_eq!(found, Some(&number), "{family}: {series:#?}");
            assert_eq!(kinds[&format!("washlet_{family}")], kind);
        }
    }

    #[test]
    fn a_workload_that_is_gone_has_no_series() {
        let of_b = |workloads| {
            let (refused, out) = (RefusedSnapshot::default(), EgressSnapshot::default());
            let scraped = scrape(Given(workloads, refused, out));
            let mut names = scraped.series.into_keys();
            names.any(|name| name.contains("workload=\"b\""))
        };
        let [a, b] = ["a", "b"].map(|name| named(name, HttpSnapshot::default()));
        assert!(of_b(vec![a.clone(), b]));
        assert!(!of_b(vec![a]));
        assert!(!of_b(Vec::new()));
    }
}
