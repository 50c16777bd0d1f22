use std::{sync::mpsc, thread};

use super::{
    standing::{LONG, thread_time},
    *,
};

fn name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

fn use_up_slice() {
    SLICE.set(Slice {
        over: true,
        ..Slice::until(0)
    });
}

#[test]
fn a_slice_ends_with_the_tick_that_ends_it() {
    let slice = Slice::until(8);
    // Late by many ticks when it began, as an instance is that was idle.
    assert!(!slice.interrupted(7).over);
    assert!(slice.interrupted(8).over);
    assert!(slice.interrupted(8).interrupted(7).over);
}

/// Tells on which threads it runs before and after its slice is over.
async fn slow(names: mpsc::Sender<String>) -> bool {
    names.send(name()).unwrap();
    use_up_slice();
    tokio::task::yield_now().await;
    names.send(name()).unwrap();
    true
}

#[tokio::test]
async fn who_takes_long_moves() {
    let lane = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let (sender, names) = mpsc::channel();
    let here = name();
    tokio::spawn(Laned::single(|| slow(sender), &Lane::new(lane.handle())))
        .await
        .unwrap();
    assert_eq!(names.recv().unwrap(), here);
    assert_eq!(names.recv().unwrap(), "washlet-slow");
}

/// As a connection that is copied to another one by the host: no guest is interrupted.
#[tokio::test]
async fn what_goes_on_without_a_guest_gives_way_and_moves() {
    // Time passes only while there is an engine.
    let _engine = crate::engine::Engine::builder().build().unwrap();
    let lane = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let copy = async {
        let begun = ticks();
        while ticks() < begun + 4 {
            future::poll_fn(|cx| poll_slice(cx)).await;
        }
        assert_eq!(name(), "washlet-slow");
        true
    };
    let copied = tokio::spawn(Laned::shared(|| copy, &Lane::new(lane.handle())));
    copied.await.unwrap();
    assert!(future::poll_fn(|cx| Poll::Ready(poll_slice(cx).is_ready())).await);
}

#[tokio::test]
async fn who_took_long_begins_in_the_slow_lane_until_it_does_not() {
    let slow = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let lane = Lane::new(slow.handle());
    let (sender, names) = mpsc::channel();
    let here = name();
    tokio::spawn(Laned::single(
        {
            let sender = sender.clone();
            || self::slow(sender)
        },
        &lane,
    ))
    .await
    .unwrap();
    for expected in [&*here, "washlet-slow"] {
        assert_eq!(names.recv().unwrap(), expected);
    }
    let slow = "washlet-slow";
    // What is refused wins no trust.
    let ran = [false, false, false, false, true, true, true, true, true];
    for (ran, expected) in ran
        .into_iter()
        .zip([[slow; 8].as_slice(), &[&here]].concat())
    {
        let sender = sender.clone();
        let short = async move {
            sender.send(name()).unwrap();
            ran
        };
        tokio::spawn(Laned::single(|| short, &lane)).await.unwrap();
        assert_eq!(names.recv().unwrap(), expected);
    }
}

#[tokio::test]
async fn who_waits_for_one_that_moves_stays() {
    let slow = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let lane = Lane::new(slow.handle());
    let (sender, names) = mpsc::channel();
    let here = name();
    let inner = Laned::single(
        {
            let sender = sender.clone();
            || self::slow(sender)
        },
        &lane,
    );
    let task = async move {
        inner.await;
        sender.send(name()).unwrap();
        false
    };
    tokio::spawn(Laned::waiting(|| task, &lane)).await.unwrap();
    for expected in [&*here, "washlet-slow", &here] {
        assert_eq!(names.recv().unwrap(), expected);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_slow_lane_has_a_low_priority_however_its_threads_are_started() {
    let nice = || rustix::process::getpriority_process(None).unwrap();
    let lane = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let started_by_it = async move { tokio::task::spawn_blocking(nice).await.unwrap() };
    let handle = lane.handle().unwrap();
    let expected = (nice() + 10).min(19);
    assert_eq!(handle.spawn(async move { nice() }).await.unwrap(), expected);
    assert_eq!(handle.spawn(started_by_it).await.unwrap(), expected);
}

/// Takes a thread for long enough, but never for a slice.
fn work() {
    let begun = thread_time();
    while thread_time() - begun < LONG {}
}

#[tokio::test]
async fn who_yields_in_time_but_takes_long_moves() {
    let slow = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let (sender, names) = mpsc::channel();
    let here = name();
    let task = async move {
        for _ in 0..3 {
            sender.send(name()).unwrap();
            work();
            tokio::task::yield_now().await;
        }
        true
    };
    tokio::spawn(Laned::single(|| task, &Lane::new(slow.handle())))
        .await
        .unwrap();
    for expected in [&*here, &here, "washlet-slow"] {
        assert_eq!(names.recv().unwrap(), expected);
    }
}

#[tokio::test]
async fn a_task_of_many_requests_may_take_as_long_as_a_slice() {
    let slow = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let lane = Lane::new(slow.handle());
    let here = name();
    let task = async move {
        for _ in 0..3 {
            work();
            tokio::task::yield_now().await;
            assert_eq!(name(), here);
        }
        true
    };
    tokio::spawn(Laned::shared(|| task, &lane)).await.unwrap();
    assert_eq!(lane.record.standing(), Standing::TRUSTED);
}

#[tokio::test]
async fn who_behaves_comes_back() {
    let slow = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let here = name();
    let _engine = crate::engine::Engine::builder().build().unwrap();
    let task = async move {
        use_up_slice();
        tokio::task::yield_now().await;
        assert_eq!(name(), "washlet-slow");
        while name() != here {
            tokio::time::sleep(crate::engine::TICK).await;
        }
        true
    };
    let lane = Lane::new(slow.handle());
    let task = tokio::spawn(Laned::single(|| task, &lane));
    tokio::time::timeout(std::time::Duration::from_secs(60), task)
        .await
        .expect("it comes back")
        .unwrap();
    let once = Standing::SUSPECT.after(false);
    assert_eq!(lane.record.standing(), once, "coming back convicts nobody");
}

#[tokio::test]
async fn who_waits_stays() {
    let lane = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let (sender, names) = mpsc::channel();
    let here = name();
    // Another guest of this thread had a long slice before.
    use_up_slice();
    let task = async move {
        tokio::task::yield_now().await;
        sender.send(name()).unwrap();
        true
    };
    tokio::spawn(Laned::single(|| task, &Lane::new(lane.handle())))
        .await
        .unwrap();
    assert_eq!(names.recv().unwrap(), here);
}

#[tokio::test]
async fn dropping_the_task_ends_it_in_the_slow_lane_too() {
    struct Tell(mpsc::Sender<()>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let lane = SlowLane::new(NonZeroUsize::MIN).unwrap();
    let (sender, dropped) = mpsc::channel();
    let tell = Tell(sender);
    let task = tokio::spawn(Laned::single(
        move || async move {
            let _tell = tell;
            use_up_slice();
            future::pending().await
        },
        &Lane::new(lane.handle()),
    ));
    tokio::task::yield_now().await;
    task.abort();
    tokio::task::spawn_blocking(move || dropped.recv())
        .await
        .unwrap()
        .unwrap();
}
