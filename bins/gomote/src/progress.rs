//! A bar on standard error, for a person who watches.

use buildlet_proto::api::ByteReader;
use indicatif::{ProgressBar, ProgressStyle};

/// The progress of one transfer. It goes away when it is dropped.
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Shows something only where `is_watched`; a bar with a share of the whole only where `length` in bytes is known.
    pub(crate) fn new(is_watched: bool, length: Option<u64>) -> Self {
        let bar = match (is_watched, length) {
            (false, _) => ProgressBar::hidden(),
            (true, Some(length)) => ProgressBar::new(length).with_style(style(BAR)),
            (true, None) => ProgressBar::new_spinner().with_style(style(SPINNER)),
        };
        Self(bar)
    }

    /// Counts the bytes that are read.
    pub(crate) fn watch(&self, reader: ByteReader) -> ByteReader {
        Box::pin(self.0.wrap_async_read(reader))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constants and shown in a test")
}

const BAR: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const SPINNER: &str = "{spinner} {bytes} {bytes_per_sec}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_are_valid() {
        for template in [BAR, SPINNER] {
            style(template);
        }
    }
}
