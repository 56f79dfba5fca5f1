//! The catalogue by name, as the macro needs it.

/// Every case, by group.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_case {
    () => {
        $crate::__cases! {
            io: bulk pingpong chunk_matrix zero_read zero_write vectored_eq vectored_honest readbuf_discipline read_partial one_byte chopped pending_storm;
            eof: after_all_data sticky empty;
            half: read_after_own_shutdown write_after_peer_fin both_orders at_once;
            shutdown: idempotent one_fin flushes;
            write: after_shutdown;
            drop: after_shutdown_delivers_all without_shutdown_is_reset half_closed_responder;
            peer_gone: writer_unblocks;
            cut: transport_is_error wakes_parked every_byte;
        }
    };
}
