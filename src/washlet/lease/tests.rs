//! Leases as pure decisions.

use super::*;

const DURATION: Duration = Duration::from_secs(40);

fn held_by(holder: &str, second: i64) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(40),
        renew_time: Timestamp::from_second(second).ok().map(MicroTime),
        ..LeaseSpec::default()
    }
}

#[test]
fn a_free_lease_is_taken_and_a_missing_one_made() {
    let now = Instant::now();
    let (free, mine) = (LeaseSpec::default(), held_by("me", 1));
    let decide = |spec, exists| decide((spec, exists), "me", &mut None, DURATION, now);
    assert_eq!(decide(None, false), Action::Create);
    assert_eq!(decide(None, true), Action::Take);
    assert_eq!(decide(Some(&free), true), Action::Take);
    assert_eq!(decide(Some(&mine), true), Action::Take, "a restarted self");
}

#[test]
fn another_holder_is_alive_as_long_as_its_renewals_move() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let mut seen = None;
    let mut decide = |second, now| {
        let spec = held_by("other", second);
        decide((Some(&spec), true), "me", &mut seen, DURATION, at(now))
    };
    // Its clock is years behind: only movement counts.
    assert_eq!(decide(1, 0), Action::StandBy);
    assert_eq!(decide(1, 39), Action::StandBy);
    assert_eq!(decide(2, 45), Action::StandBy);
    assert_eq!(decide(2, 84), Action::StandBy);
    assert_eq!(decide(2, 85), Action::Take);
}

#[test]
fn a_holder_that_cannot_renew_stops_writing_when_another_may_begin() {
    let start = Instant::now();
    let at = |s| start + Duration::from_secs(s);
    let lapsed = |standing, s| lapsed(standing, Some(start), DURATION, at(s));
    assert!(!lapsed(Standing::Holder, 39));
    assert!(lapsed(Standing::Holder, 40));
    assert!(!lapsed(Standing::Standby, 90), "it has nothing to lose");
}

#[test]
fn renewals_move_forward_though_the_clock_does_not() {
    let t = |s| MicroTime(Timestamp::from_second(s).unwrap_or_default());
    assert_eq!(later(Some(t(10)), t(20)), t(20));
    assert!(later(Some(t(20)), t(10)).0 > t(20).0);
}
