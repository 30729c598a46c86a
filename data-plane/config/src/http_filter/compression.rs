//! The libraries of `compressor` and `decompressor`.

use crate::convert::{Cx, type_name};
use crate::pb;

/// How bodies are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `gzip`
    Gzip,
    /// `br`
    Brotli,
    /// `zstd`
    Zstd,
}

impl Encoding {
    /// As statistics name it.
    pub const fn statistic(self) -> &'static str {
        match self {
            Self::Brotli => "brotli",
            _ => self.as_str(),
        }
    }

    /// As headers name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// A compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compress {
    /// Its encoding.
    pub encoding: Encoding,
    /// How hard it tries.
    pub level: u32,
    /// Its window, as a power of two; brotli's.
    pub window_bits: u32,
}

/// A decompressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decompress {
    /// Its encoding.
    pub encoding: Encoding,
    /// How many times larger the result may be.
    pub max_ratio: u32,
}

const ITS_OWN: &str = "the library chooses its own";

/// A library to compress with. Sizes of its buffers (`memory_level`, `chunk_size`) are seen by nobody.
pub(super) fn compress(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<Compress> {
    use xds_api::envoy::extensions::compression as proto;
    let pb::core::TypedExtensionConfig { name: _, typed_config } = value;
    let any = cx.required("typed_config", typed_config, |_, any| Some(any))?;
    cx.within("typed_config", |cx| match type_name(&any) {
        "envoy.extensions.compression.gzip.compressor.v3.Gzip" => {
            let proto::gzip::compressor::v3::Gzip {
                memory_level: _,
                compression_strategy,
                window_bits,
                chunk_size: _,
                compression_level,
            } = cx.unpack(&any)?;
            cx.ignore("compression_strategy", &compression_strategy, ITS_OWN);
            cx.ignore("window_bits", &window_bits, ITS_OWN);
            let level = u32::try_from(compression_level).ok().filter(|level| (1..=9).contains(level));
            Some(Compress { encoding: Encoding::Gzip, level: level.unwrap_or(6), window_bits: 15 })
        }
        "envoy.extensions.compression.brotli.compressor.v3.Brotli" => {
            let proto::brotli::compressor::v3::Brotli {
                quality,
                encoder_mode,
                window_bits,
                input_block_bits: _,
                chunk_size: _,
                disable_literal_context_modeling: _,
            } = cx.unpack(&any)?;
            cx.ignore("encoder_mode", &encoder_mode, ITS_OWN);
            let level = quality.map_or(3, |value| value.value).min(11);
            let window_bits = window_bits.map_or(18, |value| value.value).clamp(10, 24);
            Some(Compress { encoding: Encoding::Brotli, level, window_bits })
        }
        "envoy.extensions.compression.zstd.compressor.v3.Zstd" => {
            let proto::zstd::compressor::v3::Zstd {
                compression_level,
                enable_checksum,
                strategy,
                dictionary,
                chunk_size: _,
            } = cx.unpack(&any)?;
            cx.refuse("dictionary", &dictionary);
            cx.ignore("enable_checksum", &enable_checksum, ITS_OWN);
            cx.ignore("strategy", &strategy, ITS_OWN);
            let level = compression_level.map_or(3, |value| value.value).clamp(1, 22);
            Some(Compress { encoding: Encoding::Zstd, level, window_bits: 0 })
        }
        other => {
            cx.error("", format_args!("there is no compressor {other:?}"));
            None
        }
    })
}

/// A library to decompress with.
pub(super) fn decompress(cx: &mut Cx<'_>, value: pb::core::TypedExtensionConfig) -> Option<Decompress> {
    use xds_api::envoy::extensions::compression as proto;
    let pb::core::TypedExtensionConfig { name: _, typed_config } = value;
    let any = cx.required("typed_config", typed_config, |_, any| Some(any))?;
    cx.within("typed_config", |cx| match type_name(&any) {
        "envoy.extensions.compression.gzip.decompressor.v3.Gzip" => {
            let proto::gzip::decompressor::v3::Gzip { window_bits: _, chunk_size: _, max_inflate_ratio } =
                cx.unpack(&any)?;
            let max_ratio = max_inflate_ratio.map_or(100, |value| value.value).clamp(1, 1032);
            Some(Decompress { encoding: Encoding::Gzip, max_ratio })
        }
        "envoy.extensions.compression.brotli.decompressor.v3.Brotli" => {
            let proto::brotli::decompressor::v3::Brotli {
                disable_ring_buffer_reallocation: _,
                chunk_size: _,
            } = cx.unpack(&any)?;
            Some(Decompress { encoding: Encoding::Brotli, max_ratio: 100 })
        }
        "envoy.extensions.compression.zstd.decompressor.v3.Zstd" => {
            let proto::zstd::decompressor::v3::Zstd { dictionaries, chunk_size: _ } = cx.unpack(&any)?;
            cx.refuse("dictionaries", &dictionaries);
            Some(Decompress { encoding: Encoding::Zstd, max_ratio: 100 })
        }
        other => {
            cx.error("", format_args!("there is no decompressor {other:?}"));
            None
        }
    })
}
