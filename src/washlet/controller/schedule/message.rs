//! Why a workload has no place, in one sentence: hosts counted by reason, as the Kubernetes scheduler does for pods.

use std::{cmp::Reverse, collections::HashMap};

use super::filter::Refusal;

/// Longest list of reasons, in bytes; what is over is counted.
const MAX_LENGTH: usize = 1000;

/// The hosts that have all but the memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shortage {
    pub hosts: usize,
    pub wanted: u64,
    /// The most that one of them has.
    pub free: u64,
}

/// The sentence. Each host has one reason: a refusal, or the shortage.
pub(super) fn nowhere<'a>(
    hosts: usize,
    refusals: impl Iterator<Item = Refusal<'a>>,
    shortage: Shortage,
) -> String {
    if hosts == 0 {
        return "no hosts: is the agent's DaemonSet running?".to_owned();
    }
    let mut counts: HashMap<Refusal<'a>, usize> = HashMap::new();
    for refusal in refusals {
        *counts.entry(refusal).or_default() += 1;
    }
    let mut reasons: Vec<(usize, String)> = counts
        .into_iter()
        .map(|(refusal, count)| (count, refusal.text(count)))
        .collect();
    if shortage.hosts > 0 {
        reasons.push((shortage.hosts, shortage.text()));
    }
    reasons.sort_unstable_by(|(a, a_text), (b, b_text)| {
        (Reverse(a), a_text).cmp(&(Reverse(b), b_text))
    });
    format!("0/{hosts} hosts are available: {}", listed(&reasons))
}

fn listed(reasons: &[(usize, String)]) -> String {
    let mut text = String::new();
    for (index, (count, reason)) in reasons.iter().enumerate() {
        let separator = if index == 0 { "" } else { ", " };
        if index > 0 && text.len() + reason.len() > MAX_LENGTH {
            let left: usize = reasons.iter().skip(index).map(|(count, _)| count).sum();
            return format!("{text}, {left} for other reasons");
        }
        text = format!("{text}{separator}{count} {reason}");
    }
    text
}

impl Refusal<'_> {
    /// What follows the number of hosts.
    fn text(self, count: usize) -> String {
        let plural = |one: &'static str, more: &'static str| if count == 1 { one } else { more };
        match self {
            Self::Cordoned => "cordoned".to_owned(),
            Self::NotReady(why) => why.to_owned(),
            Self::Unproven => "not yet seen alive".to_owned(),
            Self::Lost => "lost".to_owned(),
            Self::Environment(wanted) => format!("not in environment `{wanted}`"),
            Self::Selector(key, value) => {
                let verb = plural("does", "do");
                format!("{verb} not match hostSelector {key}={value}")
            }
            Self::Package(namespace, package) => {
                format!("{} {namespace}:{package}", plural("lacks", "lack"))
            }
            Self::Interface(need, interface) => {
                let verb = plural("lacks", "lack");
                let version = need.version.as_ref().map(|v| format!("@{v}"));
                let version = version.unwrap_or_default();
                format!(
                    "{verb} {}:{}/{interface}{version}",
                    need.namespace, need.package
                )
            }
        }
    }
}

impl Shortage {
    /// What is free is told in sixteenths of what is wanted: a text that changed with every placement elsewhere would be
    /// written again and again for each workload that waits.
    fn text(self) -> String {
        let wanted = quantity(self.wanted);
        let sixteenths = u128::from(self.free) * 16 / u128::from(self.wanted.max(1));
        let free = u128::from(self.wanted) * sixteenths / 16;
        let free = quantity(u64::try_from(free).unwrap_or(u64::MAX));
        format!("with insufficient memory ({wanted} wanted, at most {free} free)")
    }
}

/// Bytes as people write them, rounded down to a tenth of the unit.
fn quantity(bytes: u64) -> String {
    const UNITS: [(u32, &str); 4] = [(40, "Ti"), (30, "Gi"), (20, "Mi"), (10, "Ki")];
    let unit = UNITS.into_iter().find(|(power, _)| bytes >> power > 0);
    let Some((power, unit)) = unit else {
        return bytes.to_string();
    };
    let tenths = (u128::from(bytes) * 10) >> power;
    match tenths % 10 {
        0 => format!("{}{unit}", tenths / 10),
        tenth => format!("{}.{tenth}{unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_short() {
        let cases = [
            (0, "0"),
            (1023, "1023"),
            (1 << 20, "1Mi"),
            (3 << 29, "1.5Gi"),
            ((1 << 30) - 1, "1023.9Mi"),
            (u64::MAX, "16777215.9Ti"),
        ];
        for (bytes, text) in cases {
            assert_eq!(quantity(bytes), text);
        }
    }

    #[test]
    fn a_long_list_is_cut_and_counted() {
        let values: Vec<String> = (0..90).map(|i| format!("{i:060}")).collect();
        let refusals = values.iter().map(|v| Refusal::Selector("zone", v));
        let shortage = Shortage {
            hosts: 0,
            wanted: 0,
            free: 0,
        };
        let text = nowhere(90, refusals, shortage);
        assert!(text.len() < MAX_LENGTH + 100, "{}", text.len());
        let told = text.matches("hostSelector").count();
        assert!(told > 5, "{text}");
        assert!(
            text.ends_with(&format!("{} for other reasons", 90 - told)),
            "{text}"
        );
    }
}
