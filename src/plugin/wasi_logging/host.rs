//! The host function.

use wasmtime::component::HasData;

use super::{
    Origin,
    bindings::{draft, unversioned},
};
use crate::plugin::StoreState;

/// Longest message, in bytes; the rest is cut off. A guest can log at any rate, but not in any size.
const MAX_MESSAGE: usize = 8 << 10;

/// Longest context, in bytes.
const MAX_CONTEXT: usize = 256;

/// Whose events they are; none if the workload was bound without this plugin.
pub(super) struct View<'a>(Option<&'a Origin>);

/// Finds that.
pub(super) fn view(state: &mut StoreState) -> View<'_> {
    View(state.slot())
}

impl HasData for View<'static> {
    type Data<'a> = View<'a>;
}

impl draft::Host for View<'_> {
    fn log(&mut self, level: draft::Level, context: String, message: String) {
        let Some(Origin {
            namespace,
            workload,
            component,
        }) = self.0
        else {
            return;
        };
        let context = cut(&context, MAX_CONTEXT);
        let message = cut(&message, MAX_MESSAGE);
        macro_rules! event {
            ($level:ident $(, $($critical:tt)*)?) => {
                tracing::$level!(target: "washlet::guest", namespace, workload, %component, context, $($($critical)*,)? "{message}")
            };
        }
        match level {
            draft::Level::Trace => event!(trace),
            draft::Level::Debug => event!(debug),
            draft::Level::Info => event!(info),
            draft::Level::Warn => event!(warn),
            draft::Level::Error => event!(error),
            draft::Level::Critical => event!(error, critical = true),
        }
    }
}

impl unversioned::Host for View<'_> {
    fn log(&mut self, level: unversioned::Level, context: String, message: String) {
        let level = match level {
            unversioned::Level::Trace => draft::Level::Trace,
            unversioned::Level::Debug => draft::Level::Debug,
            unversioned::Level::Info => draft::Level::Info,
            unversioned::Level::Warn => draft::Level::Warn,
            unversioned::Level::Error => draft::Level::Error,
            unversioned::Level::Critical => draft::Level::Critical,
        };
        draft::Host::log(self, level, context, message);
    }
}

/// The longest beginning of `text` that fits.
fn cut(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::testing::events_of;

    #[test]
    fn messages_are_events_of_their_level() {
        let origin = Origin {
            namespace: "default".to_owned(),
            workload: "app".to_owned(),
            component: "main".into(),
        };
        let events = events_of(|| {
            let mut view = View(Some(&origin));
            draft::Host::log(
                &mut view,
                draft::Level::Warn,
                "ctx".to_owned(),
                "hello".to_owned(),
            );
            unversioned::Host::log(
                &mut view,
                unversioned::Level::Critical,
                String::new(),
                "x".repeat(MAX_MESSAGE + 1),
            );
            draft::Host::log(
                &mut View(None),
                draft::Level::Error,
                String::new(),
                "lost".to_owned(),
            );
        });
        let [warning, critical] = events.as_slice() else {
            panic!("{events:?}")
        };
        for part in [
            "WARN",
            "hello",
            "context=\"ctx\"",
            "namespace=\"default\"",
            "workload=\"app\"",
            "component=main",
        ] {
            assert!(warning.contains(part), "{warning}");
        }
        assert!(
            critical.starts_with("ERROR") && critical.contains("critical=true"),
            "{critical}"
        );
        assert!(critical.len() < MAX_MESSAGE + 200);
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("äöü", 100), "äöü");
    }
}
