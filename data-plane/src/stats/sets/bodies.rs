//! Filters that change bodies.

use crate::stats::schema::stat_set;

stat_set! {
    /// `http.<stat_prefix>.compressor.<library>.<encoding>.`, where the object's name is all of it.
    http_compressor { root: "http", tag: Tag::None }
    counters {
        compressed = "response.compressed",
        not_compressed = "response.not_compressed",
        request_compressed = "request.compressed",
        request_not_compressed = "request.not_compressed",
    }
    gauges {}
    histograms {}
}

stat_set! {
    /// `http.<stat_prefix>.decompressor.<library>.<encoding>.`, where the object's name is all of it.
    http_decompressor { root: "http", tag: Tag::None }
    counters {
        request_decompressed = "request.decompressed",
        request_not_decompressed = "request.not_decompressed",
        response_decompressed = "response.decompressed",
        response_not_decompressed = "response.not_decompressed",
    }
    gauges {}
    histograms {}
}
