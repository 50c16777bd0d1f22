use std::collections::HashMap;

use super::*;

/// A controller's view of hosts whose renewals are told to it.
struct Seen {
    liveness: Liveness,
    start: Instant,
    wall: Timestamp,
    judged: u64,
}

const DAY: i64 = 86_400;

impl Seen {
    fn new() -> Self {
        Self {
            liveness: Liveness::default(),
            start: Instant::now(),
            wall: Timestamp::from_second(100 * DAY).unwrap(),
            judged: 0,
        }
    }

    fn at(&self, second: u64) -> Instant {
        self.start + Duration::from_secs(second)
    }

    /// At this second, the host's Lease was renewed at that second by its own clock.
    fn lease(&mut self, second: u64, host: &str, renewed: i64) {
        self.held(second, host, Some("agent"), Some(renewed));
    }

    fn held(&mut self, second: u64, host: &str, holder: Option<&str>, renewed: Option<i64>) {
        let at = |s: i64| Timestamp::from_second(100 * DAY + s).unwrap();
        let renewal = Renewal {
            holder,
            renewed: renewed.map(at),
            duration: Some(Duration::from_secs(40)),
        };
        let wall = self.wall + Duration::from_secs(second);
        self.liveness.observe(host, renewal, self.at(second), wall);
    }

    /// Judges every few seconds until `second`, as the controller does.
    fn judge(&mut self, second: u64) -> Judgement {
        while self.judged + 5 < second {
            self.judged += 5;
            self.liveness.judge(self.at(self.judged));
        }
        self.judged = second;
        self.liveness.judge(self.at(second))
    }

    fn state(&mut self, second: u64, host: &str) -> State {
        self.judge(second).of(host)
    }

    fn lost(&self, second: u64) -> State {
        State::Lost {
            since: self.at(second),
        }
    }
}

#[test]
fn a_host_lives_as_long_as_its_renewals_move() {
    let mut seen = Seen::new();
    seen.lease(0, "a", 0);
    assert_eq!(seen.state(44, "a"), State::Alive);
    seen.lease(44, "a", 0);
    assert_eq!(
        seen.state(45, "a"),
        seen.lost(45),
        "told again is not moved"
    );
    assert_eq!(seen.state(60, "a"), seen.lost(45), "since then");
    // Its clock went back a day.
    seen.lease(61, "a", -DAY);
    assert_eq!(seen.state(61, "a"), State::Alive, "cut off, and back");
    assert_eq!(seen.state(105, "a"), State::Alive);
    assert_eq!(seen.state(106, "a"), seen.lost(106));
}

#[test]
fn a_released_lease_is_a_sign_of_life() {
    let mut seen = Seen::new();
    seen.lease(0, "a", 0);
    seen.judge(30);
    seen.held(30, "a", None, Some(0));
    assert_eq!(seen.state(74, "a"), State::Alive);
    assert_eq!(seen.state(75, "a"), seen.lost(75), "nobody took it");
}

#[test]
fn a_fresh_controller_doubts_an_old_renewal() {
    let cases = [
        // Old against the wall clock: either the host is dead, or its clock is behind.
        (Some(-91), State::Unproven),
        (Some(-90), State::Alive),
        (Some(0), State::Alive),
        (Some(DAY), State::Alive),
        (None, State::Unproven),
    ];
    for (renewed, state) in cases {
        let mut seen = Seen::new();
        seen.held(0, "a", Some("agent"), renewed);
        assert_eq!(seen.state(0, "a"), state, "{renewed:?}");
        assert_eq!(seen.state(44, "a"), state, "{renewed:?}");
        assert_eq!(seen.state(45, "a"), seen.lost(45), "{renewed:?}");
        seen.held(46, "a", Some("agent"), renewed.map(|s| s + 1).or(Some(46)));
        assert_eq!(seen.state(46, "a"), State::Alive, "{renewed:?}");
    }
}

#[test]
fn a_lease_that_is_seen_late_has_not_moved() {
    let mut seen = Seen::new();
    seen.liveness
        .observe("a", Renewal::default(), seen.at(0), seen.wall);
    assert_eq!(seen.state(1, "a"), State::Unproven);
    seen.lease(2, "a", -DAY);
    assert_eq!(seen.state(2, "a"), State::Unproven);
    seen.lease(3, "a", -DAY + 1);
    assert_eq!(seen.state(3, "a"), State::Alive);
    assert_eq!(seen.state(3, "unheard of"), State::Unproven);
}

#[test]
fn a_longer_lease_gives_a_longer_term() {
    let mut seen = Seen::new();
    for (host, seconds) in [("short", 1), ("long", 100)] {
        let renewal = Renewal {
            holder: Some("agent"),
            renewed: Some(seen.wall),
            duration: Some(Duration::from_secs(seconds)),
        };
        seen.liveness.observe(host, renewal, seen.at(0), seen.wall);
    }
    assert_eq!(seen.state(44, "short"), State::Alive);
    assert_eq!(seen.state(46, "short"), seen.lost(45));
    assert_eq!(seen.state(104, "long"), State::Alive);
    assert_eq!(seen.state(105, "long"), seen.lost(105));
}

#[test]
fn nothing_is_moved_while_most_hosts_look_lost() {
    // How many of how many are lost, and whether that is suspect.
    let cases = [
        (1, 1, false),
        (1, 2, false),
        (2, 2, true),
        (1, 3, false),
        (2, 3, true),
        (2, 4, false),
        (3, 4, true),
    ];
    for (lost, all, suspect) in cases {
        let mut seen = Seen::new();
        for host in 0..all {
            seen.lease(0, &format!("n{host}"), 0);
        }
        for second in [10, 20, 30, 40] {
            seen.judge(second);
            for host in lost..all {
                seen.lease(second, &format!("n{host}"), i64::try_from(second).unwrap());
            }
        }
        assert_eq!(
            seen.judge(44).suspended,
            None,
            "{lost} of {all}: none is lost yet"
        );
        let judgement = seen.judge(46);
        assert_eq!(judgement.of("n0"), seen.lost(45));
        let message = judgement.suspended;
        assert_eq!(message.is_some(), suspect, "{lost} of {all}: {message:?}");
        if let Some(message) = message {
            let count = format!(
                "{lost} of {all} hosts look lost; the API server or the network is suspected"
            );
            assert!(message.starts_with(&count), "{message}");
        }
    }
}

#[test]
fn the_first_of_many_waits_for_the_others() {
    let mut seen = Seen::new();
    // All are cut off at once, but had last renewed at different times.
    seen.lease(0, "a", 0);
    seen.lease(5, "b", 5);
    seen.lease(9, "c", 9);
    let judgement = seen.judge(46);
    assert_eq!(judgement.of("a"), seen.lost(45));
    assert_eq!(judgement.of("c"), State::Alive);
    let message = judgement.suspended.expect("suspended");
    assert!(message.starts_with("3 of 3"), "{message}");
}

#[test]
fn after_a_suspension_the_laggards_get_time() {
    let mut seen = Seen::new();
    for host in ["a", "b", "c"] {
        seen.lease(0, host, 0);
    }
    assert!(seen.judge(100).suspended.is_some());
    let renew = |seen: &mut Seen, from: u64, to: u64| {
        for second in (from..=to).step_by(5) {
            seen.judge(second);
            for host in ["a", "b"] {
                seen.lease(second, host, i64::try_from(second).unwrap());
            }
        }
    };
    // The API server is back, but one host is not; it is lost once more only after a whole term.
    renew(&mut seen, 101, 141);
    let judgement = seen.judge(144);
    assert_eq!(judgement.of("c"), seen.lost(45));
    let message = judgement.suspended.expect("still suspended");
    assert!(
        message.starts_with("1 of 3 hosts look lost, after most did"),
        "{message}"
    );
    let judgement = seen.judge(146);
    assert_eq!(judgement.suspended, None, "it resumes by itself");
    assert_eq!(judgement.of("c"), seen.lost(45));
    assert_eq!(judgement.of("a"), State::Alive);
}

#[test]
fn hosts_that_are_no_more_do_not_count() {
    let mut seen = Seen::new();
    for host in ["a", "b", "c"] {
        seen.lease(0, host, 0);
    }
    seen.judge(40);
    seen.lease(40, "a", 40);
    seen.judge(44);
    seen.liveness.retain(|host| host != "c");
    let judgement = seen.judge(46);
    assert_eq!(judgement.suspended, None, "1 of 2");
    assert_eq!(judgement.of("b"), seen.lost(45));
    assert_eq!(judgement.of("c"), State::Unproven, "unheard of");
}

#[test]
fn a_controller_that_was_stopped_blames_nobody() {
    let mut seen = Seen::new();
    for host in ["a", "b", "c", "d"] {
        seen.lease(0, host, 0);
    }
    seen.judge(5);
    // Stopped for a minute; then three renewals arrive before the next judgement.
    for host in ["a", "b", "c"] {
        seen.lease(65, host, 65);
    }
    let judgement = seen.liveness.judge(seen.at(65));
    assert_eq!(judgement.of("d"), State::Unproven);
    assert_eq!(judgement.suspended, None);
    seen.judged = 65;
    for second in [75, 85, 95, 105] {
        seen.judge(second);
        for host in ["a", "b", "c"] {
            seen.lease(second, host, i64::try_from(second).unwrap());
        }
    }
    assert_eq!(seen.state(111, "d"), seen.lost(110), "it had its chance");
}

#[test]
fn evictions_are_so_many_in_any_ten_seconds() {
    let mut seen = Seen::new();
    let calm = seen.judge(0);
    let mut evictions = Evictions::default();
    assert_eq!(evictions.again(), None);
    assert_eq!(evictions.allowance(&calm, seen.at(0)), 100);
    evictions.spend(70, seen.at(0));
    assert_eq!(evictions.allowance(&calm, seen.at(4)), 30);
    evictions.spend(30, seen.at(4));
    assert_eq!(evictions.allowance(&calm, seen.at(9)), 0);
    assert_eq!(evictions.again(), Some(seen.at(10)));
    assert_eq!(evictions.allowance(&calm, seen.at(10)), 70);
    assert_eq!(evictions.again(), Some(seen.at(14)));
    assert_eq!(evictions.allowance(&calm, seen.at(14)), 100);
}

/// SplitMix64: the same story in every run.
fn lot(state: &mut u64, limit: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % limit
}

/// Ten minutes of hosts that come and go, seen second by second.
fn story(seed: u64, mut check: impl FnMut(u64, &Seen, &Judgement, usize, &HashMap<String, u64>)) {
    let mut state = seed;
    let mut seen = Seen::new();
    let hosts = 1 + lot(&mut state, 8);
    let mut evictions = Evictions::default();
    let mut cut_until = vec![0; usize::try_from(hosts).unwrap()];
    let mut moved_at = HashMap::new();
    for second in 0..600 {
        for (host, until) in (0_u64..).zip(&mut cut_until) {
            if lot(&mut state, 200) == 0 {
                *until = second + lot(&mut state, 200);
            }
            if (second + host).is_multiple_of(10) && *until <= second {
                let name = format!("n{host}");
                seen.lease(second, &name, i64::try_from(second).unwrap());
                moved_at.insert(name, second);
            }
        }
        // The whole network, now and then.
        if lot(&mut state, 300) == 0 {
            let until = second + lot(&mut state, 150);
            cut_until.iter_mut().for_each(|u| *u = until.max(*u));
        }
        let judgement = seen.judge(second);
        let now = seen.at(second);
        let wanted = usize::try_from(lot(&mut state, 90)).unwrap();
        let moved = wanted.min(evictions.allowance(&judgement, now));
        evictions.spend(moved, now);
        check(second, &seen, &judgement, moved, &moved_at);
    }
}

#[test]
fn never_more_than_allowed_and_nothing_while_suspended() {
    let (mut most, mut suspended) = (0, 0);
    for seed in 0..60 {
        let mut moved: Vec<usize> = Vec::new();
        story(seed, |_, _, judgement, now, _| {
            moved.push(now);
            if judgement.suspended.is_some() {
                assert_eq!(now, 0, "seed {seed}");
                suspended += 1;
            }
        });
        for window in moved.windows(10) {
            most = most.max(window.iter().sum());
        }
    }
    assert_eq!(most, 100, "the limit is reached, and kept");
    assert!(suspended > 100, "{suspended}");
}

#[test]
fn a_host_is_lost_if_and_only_if_it_was_silent_for_its_term() {
    let (mut lost, mut alive) = (0, 0);
    for seed in 0..60 {
        story(seed, |second, seen, judgement, _, moved_at| {
            let mut silent = 0;
            for (host, moved) in moved_at {
                let age = second - moved;
                if age >= 45 {
                    assert_eq!(judgement.of(host), seen.lost(moved + 45), "seed {seed}");
                    lost += 1;
                    silent += 1;
                } else {
                    assert_eq!(judgement.of(host), State::Alive, "seed {seed}");
                    alive += 1;
                }
            }
            let most = silent > 1 && silent * 2 > moved_at.len();
            assert!(
                !most || judgement.suspended.is_some(),
                "seed {seed}, {second} s"
            );
            assert!(
                silent > 0 || judgement.suspended.is_none(),
                "seed {seed}, {second} s"
            );
        });
    }
    assert!(lost > 1000 && alive > 1000, "{lost} {alive}");
}

#[test]
fn agents_that_left_on_purpose_do_not_make_a_majority() {
    let mut seen = Seen::new();
    for host in ["gone-1", "gone-2", "gone-3"] {
        seen.lease(0, host, 0);
        seen.held(5, host, None, Some(0));
    }
    for second in (0..=100).step_by(10) {
        for host in ["a", "b"] {
            seen.lease(second, host, i64::try_from(second).unwrap());
        }
        seen.judge(second);
    }
    let judgement = seen.judge(101);
    assert!(matches!(judgement.of("gone-1"), State::Lost { .. }));
    assert_eq!(judgement.suspended, None);
}

#[test]
fn a_lease_that_claims_to_last_for_ever_is_not_believed() {
    let mut seen = Seen::new();
    let renewal = Renewal {
        holder: Some("agent"),
        renewed: Some(seen.wall),
        duration: Some(Duration::from_secs(2_147_483_647)),
    };
    let (now, wall) = (seen.at(0), seen.wall);
    seen.liveness.observe("a", renewal, now, wall);
    assert_eq!(seen.state(124, "a"), State::Alive);
    assert_eq!(seen.state(125, "a"), seen.lost(125));
}
