//! Kubernetes Events: told once, counted when repeated, and never so many that the API server feels it.
//!
//! Numbers are the kubelet's: each object may cause 25 events at once and one more every 5 minutes; the node as a whole 50 a
//! second. What is over the limit is dropped and counted. A failed write is dropped too: status says the same, for longer.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use prometheus_client::metrics::counter::Counter;
use tokio::{sync::mpsc, time::Instant};

/// `reportingController` of every event.
const CONTROLLER: &str = "washlet";
/// Events of one object that may come at once.
const OBJECT_BURST: f64 = 25.0;
/// Seconds until an object may cause one more.
const OBJECT_REFILL: f64 = 300.0;
/// Events of the node that may come at once, and each second.
const NODE_BURST: f64 = 100.0;
const NODE_PER_SECOND: f64 = 50.0;
/// Events that wait to be written.
const QUEUE: usize = 1024;
/// Events that are remembered, to count repetitions.
const REMEMBERED: usize = 4096;
/// Longest time for a write.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest note, in bytes: the API server's limit is 1 KiB.
const MAX_NOTE: usize = 1000;

/// Whether an event is good or bad news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Tone {
    Normal,
    Warning,
}

/// One thing to tell.
#[derive(Debug, Clone)]
pub(super) struct News {
    pub regarding: ObjectReference,
    pub tone: Tone,
    pub reason: &'static str,
    pub action: &'static str,
    pub note: String,
}

/// Takes news from anybody, without waiting.
#[derive(Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<News>,
    dropped: Counter,
}

impl Events {
    /// Starts the task that writes events.
    pub fn spawn(client: Client, instance: String, dropped: Counter) -> Self {
        let (queue, news) = mpsc::channel(QUEUE);
        tokio::spawn(write(client, instance, news, dropped.clone()));
        Self { queue, dropped }
    }

    /// Tells something; dropped and counted if too much is waiting already.
    pub fn tell(&self, news: News) {
        if self.queue.try_send(news).is_err() {
            self.dropped.inc();
        }
    }
}

async fn write(client: Client, instance: String, mut news: mpsc::Receiver<News>, dropped: Counter) {
    let mut budget = Budget::default();
    let mut told: HashMap<Key, Told> = HashMap::new();
    while let Some(item) = news.recv().await {
        let now = Instant::now();
        if !budget.allows(item.regarding.uid.as_deref().unwrap_or_default(), now) {
            dropped.inc();
            continue;
        }
        let key = Key {
            uid: item.regarding.uid.clone(),
            reason: item.reason,
            note: item.note.clone(),
        };
        let namespace = item
            .regarding
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let repeated = match told.get_mut(&key) {
            Some(before) => before.again(&api, now).await,
            None => false,
        };
        if repeated {
            continue;
        }
        let event = event(&item, &instance);
        let params = PostParams::default();
        match tokio::time::timeout(TIMEOUT, api.create(&params, &event)).await {
            Ok(Ok(created)) => {
                if told.len() >= REMEMBERED {
                    told.retain(|_, t| now.duration_since(t.last) < Duration::from_secs(600));
                }
                if told.len() < REMEMBERED {
                    told.insert(
                        key,
                        Told {
                            name: created.metadata.name.unwrap_or_default(),
                            count: 1,
                            last: now,
                        },
                    );
                }
            }
            failed => {
                dropped.inc();
                tracing::debug!(?failed, reason = item.reason, "event not written");
            }
        }
    }
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    uid: Option<String>,
    reason: &'static str,
    note: String,
}

struct Told {
    name: String,
    count: i32,
    last: Instant,
}

impl Told {
    /// Counts a repetition on the event that was written first; false if that is gone.
    async fn again(&mut self, api: &Api<Event>, now: Instant) -> bool {
        let series = EventSeries {
            count: self.count + 1,
            last_observed_time: MicroTime(Timestamp::now()),
        };
        let patch = serde_json::json!({ "series": series });
        let (params, patch) = (PatchParams::default(), Patch::Merge(&patch));
        let patched = tokio::time::timeout(TIMEOUT, api.patch(&self.name, &params, &patch)).await;
        let counted = matches!(patched, Ok(Ok(_)));
        if counted {
            self.count += 1;
            self.last = now;
        }
        counted
    }
}

fn event(item: &News, instance: &str) -> Event {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    let mut note = item.note.clone();
    note.truncate(note.floor_char_boundary(MAX_NOTE));
    Event {
        metadata: ObjectMeta {
            name: Some(format!(
                "{}.{now:x}",
                item.regarding.name.as_deref().unwrap_or(CONTROLLER)
            )),
            namespace: item.regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        action: Some(item.action.to_owned()),
        reason: Some(item.reason.to_owned()),
        note: Some(note),
        type_: Some(format!("{:?}", item.tone)),
        regarding: Some(item.regarding.clone()),
        event_time: Some(MicroTime(Timestamp::now())),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        ..Event::default()
    }
}

/// A token bucket.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, burst: f64, seconds_a_token: f64, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() / seconds_a_token;
        self.tokens = (self.tokens + earned).min(burst);
        self.at = now;
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

/// What may still be told.
#[derive(Default)]
struct Budget {
    node: Option<Bucket>,
    objects: HashMap<String, Bucket>,
}

impl Budget {
    fn allows(&mut self, uid: &str, now: Instant) -> bool {
        if self.objects.len() >= REMEMBERED {
            // A bucket that has had time to fill is as good as none.
            let full = OBJECT_BURST * OBJECT_REFILL;
            self.objects
                .retain(|_, b| now.duration_since(b.at).as_secs_f64() < full);
        }
        let node = self.node.get_or_insert(Bucket {
            tokens: NODE_BURST,
            at: now,
        });
        let object = self.objects.entry(uid.to_owned()).or_insert(Bucket {
            tokens: OBJECT_BURST,
            at: now,
        });
        object.take(OBJECT_BURST, OBJECT_REFILL, now)
            && node.take(NODE_BURST, 1.0 / NODE_PER_SECOND, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_may_burst_and_then_seldom() {
        let mut budget = Budget::default();
        let now = Instant::now();
        let allowed = (0..100).filter(|_| budget.allows("a", now)).count();
        assert_eq!(allowed, 25);
        assert!(budget.allows("b", now), "another object has its own budget");
        assert!(!budget.allows("a", now + Duration::from_secs(299)));
        assert!(budget.allows("a", now + Duration::from_secs(601)));
    }

    #[test]
    fn the_node_is_bounded() {
        let mut budget = Budget::default();
        let now = Instant::now();
        let allowed = (0..1000)
            .filter(|i| budget.allows(&i.to_string(), now))
            .count();
        assert_eq!(allowed, 100);
    }

    #[test]
    fn notes_fit_the_api_servers_limit() {
        let news = News {
            regarding: ObjectReference::default(),
            tone: Tone::Warning,
            reason: "X",
            action: "Y",
            note: "ü".repeat(2000),
        };
        let event = event(&news, "node");
        assert!(event.note.is_some_and(|n| n.len() <= 1024));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
    }
}
