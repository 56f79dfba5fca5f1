//! All jobs as JSON, a few at a time.

use std::io::Write;
use std::sync::Arc;

use buildlet_proto::api::ByteReader;

use super::Shared;
use crate::stream::produced;

/// A JSON array of all jobs in the order of their start. Those that start or go meanwhile may be in it or not.
pub(super) fn list(shared: Arc<Shared>) -> ByteReader {
    produced(move |out| {
        let mut opening = "[";
        let mut last = 0;
        loop {
            let jobs = shared.table().some_after(last);
            let Some(job) = jobs.last() else { break };
            last = job.number;
            for job in &jobs {
                out.write_all(opening.as_bytes())?;
                serde_json::to_writer(&mut *out, &job.tell())?;
                opening = ",\n";
            }
        }
        if last == 0 {
            out.write_all(opening.as_bytes())?;
        }
        out.write_all(b"]\n")
    })
}
