//! Filters that change bodies.

use crate::stats::schema::stat_set;

stat_set! {
    /// `http.<stat_prefix>.compressor.<library>.<encoding>.`, where the object's name is all of it; for requests with
    /// `request` after it, and for responses with `response`, where their direction is configured by itself.
    http_compressor { root: "http", tag: Tag::First("envoy.http_conn_manager_prefix") }
    counters {
        compressed = "compressed",
        not_compressed = "not_compressed",
        total_uncompressed_bytes = "total_uncompressed_bytes",
        total_compressed_bytes = "total_compressed_bytes",
        content_length_too_small = "content_length_too_small",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// The same of responses: what clients accept.
    http_compressor_choice { root: "http", tag: Tag::First("envoy.http_conn_manager_prefix") }
    counters {
        no_accept_header = "no_accept_header",
        header_identity = "header_identity",
        header_compressor_used = "header_compressor_used",
        header_compressor_overshadowed = "header_compressor_overshadowed",
        header_wildcard = "header_wildcard",
        header_not_valid = "header_not_valid",
        not_compressed_etag = "not_compressed_etag",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.decompressor.<library>.<encoding>.`, where the object's name is all of it.
    http_decompressor { root: "http", tag: Tag::First("envoy.http_conn_manager_prefix") }
    counters {
        request_decompressed = "request.decompressed",
        request_not_decompressed = "request.not_decompressed",
        response_decompressed = "response.decompressed",
        response_not_decompressed = "response.not_decompressed",
        request_total_compressed_bytes = "request.total_compressed_bytes",
        request_total_uncompressed_bytes = "request.total_uncompressed_bytes",
        response_total_compressed_bytes = "response.total_compressed_bytes",
        response_total_uncompressed_bytes = "response.total_uncompressed_bytes",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.ext_proc.`
    http_ext_proc { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        streams_started = "ext_proc.streams_started",
        stream_msgs_sent = "ext_proc.stream_msgs_sent",
        stream_msgs_received = "ext_proc.stream_msgs_received",
        streams_closed = "ext_proc.streams_closed",
        streams_failed = "ext_proc.streams_failed",
        failure_mode_allowed = "ext_proc.failure_mode_allowed",
        message_timeouts = "ext_proc.message_timeouts",
        rejected_header_mutations = "ext_proc.rejected_header_mutations",
        override_message_timeout_received = "ext_proc.override_message_timeout_received",
        override_message_timeout_ignored = "ext_proc.override_message_timeout_ignored",
        spurious_msgs_received = "ext_proc.spurious_msgs_received",
        clear_route_cache_ignored = "ext_proc.clear_route_cache_ignored",
        clear_route_cache_disabled = "ext_proc.clear_route_cache_disabled",
        http_not_ok_resp_received = "ext_proc.http_not_ok_resp_received",
        immediate_responses_sent = "ext_proc.immediate_responses_sent",
        server_half_closed = "ext_proc.server_half_closed",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.lua.`, and what the filter's own prefix adds; the object's name is all of it.
    http_lua { root: "http", tag: Tag::None }
    counters {
        errors = "errors",
        executions = "executions",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `json_to_metadata.rq.` and `json_to_metadata.resp.`; the object's name is all of it.
    json_to_metadata { root: "", tag: Tag::None }
    counters {
        success = "success",
        mismatched_content_type = "mismatched_content_type",
        no_body = "no_body",
        invalid_json_body = "invalid_json_body",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.custom_response_`
    http_custom_response { root: "http", tag: Tag::Label("envoy.http_conn_manager_prefix") }
    counters {
        custom_response_redirect_no_route = "custom_response_redirect_no_route",
        custom_response_invalid_uri = "custom_response_invalid_uri",
    }
    gauges {}
    histograms {}
}
