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
        let Some(Origin { namespace, workload, component }) = self.0 else { return };
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
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(cut("äöü", 3), "ä");
        assert_eq!(cut("äöü", 100), "äöü");
    }
}
