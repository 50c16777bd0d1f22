//! Threads that take what others leave.

/// The lowest priority.
#[cfg(target_os = "linux")]
const LOWEST: i32 = 19;

/// Gives the calling thread a lower priority: makes it so much nicer than its process is.
pub fn be_nicer(steps: i32) {
    // Elsewhere than on Linux this would be about the process. There a process is its first thread, whose niceness is what
    // others were started with; the calling thread may have that of one that was made nicer already.
    #[cfg(target_os = "linux")]
    if let Ok(nice) = rustix::process::getpriority_process(Some(rustix::process::getpid())) {
        // That it fails (it cannot, for a lower priority) would only cost fairness.
        let _ = rustix::process::setpriority_process(None, (nice + steps).min(LOWEST));
    }
    #[cfg(not(target_os = "linux"))]
    let _ = steps;
}
