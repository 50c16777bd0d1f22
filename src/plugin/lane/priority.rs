//! How the system shares a core between the two lanes.

use crate::engine::nice;

/// How nice the slow lane is. The system then gives a thread that wakes for a short request the core at once; and a guest
/// with much to do still gets about a tenth of a core that others keep busy.
const NICE: i32 = 10;

/// What a thread of the fast lane asks to have of a core at a time, in nanoseconds; the least that Linux grants.
///
/// Whoever asks for less than the one at work is let in at once when it wakes, unless it has had more than its part lately
/// (EEVDF's slices, Linux 6.12). Otherwise it waits, now and then, for the other's slice to end, which is some milliseconds.
#[cfg(target_os = "linux")]
const SLICE: u64 = 100_000;

/// Makes this thread one of the slow lane.
pub fn of_slow_lane() {
    nice::be_nicer(NICE);
}

/// Makes this thread one of the fast lane. What the system does not know is not missed.
pub fn of_fast_lane() {
    #[cfg(target_os = "linux")]
    ask_for_short_slices();
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "no library that is used here has this system call"
)]
fn ask_for_short_slices() {
    let Ok(nice) = rustix::process::getpriority_process(None) else {
        return;
    };
    let mut attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        // Whoever gave this process another policy knows why.
        sched_flags: libc::SCHED_FLAG_KEEP_POLICY as u64,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: SLICE,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the system reads `size` bytes from `attributes`, which lives until it returns, and writes to its `size` at most.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut attributes, 0) };
    if result != 0 {
        let error = std::io::Error::last_os_error();
        tracing::debug!(%error, "the system gives a thread for requests no short time slices");
    }
}
