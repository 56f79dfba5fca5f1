//! The catalogue by name, as the macro needs it.

/// Every case, by group.
#[doc(hidden)]
#[macro_export]
macro_rules! __each_case {
    () => {
        $crate::__cases! {
            io: bulk pingpong chunk_matrix zero_read zero_write zero_write_silent vectored_eq vectored_honest readbuf_discipline read_partial one_byte chopped pending_storm;
            eof: after_all_data sticky empty;
            half: read_after_own_shutdown write_after_peer_fin both_orders at_once;
            shutdown: idempotent one_fin flushes;
            write: after_shutdown;
            drop: after_shutdown_delivers_all without_shutdown_is_reset behind_data_is_reset write_after_peer_reset half_closed_responder;
            peer_gone: writer_unblocks;
            cut: transport_is_error wakes_parked every_byte;
            reset: is_not_eof pending_ops_wake buffered_data_policy own_ops_fail;
            close: other_task_wakes_both idempotent ops_after_close_fail peer_sees_end local_session_close_wakes_streams;
            flush: progress pending_under_backpressure no_data_lost_if_never_called one_write;
            bp: bounded resume slow_reader_isolated;
            mem: alloc_bound idle_stream no_leak_after_n_open_close retention small_reads;
            wake: last_registered rw_independent write_only read_only no_busy_loop dropped on_eof on_reset on_close on_deadline panic_safe reentrant;
            cancel: read write shutdown open dial accept;
            deadline: clear past_beats_data move_later_while_parked move_earlier_while_parked split_halves;
            addr: stable;
            nettest: basic_io ping_pong racy_read racy_write read_timeout write_timeout past_timeout present_timeout future_timeout close_timeout concurrent_methods;
            mux: acceptor_speaks_first both_open_simultaneously open_close_storm accept_backlog max_streams_is_stream_error fair latency_under_bulk control_not_blocked coop id_reuse_and_exhaustion unsolicited_pong silent_acceptor goaway_drains ping_under_load;
            fuzz: bytes_never_panic alloc_bound output_amplification split_invariance;
            diff: reference;
        }
    };
}
