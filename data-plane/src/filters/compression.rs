//! Codecs that compress and decompress bodies as they pass.

use std::io::{self, Write};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use sail_proxy_config::http_filter::compression::{Compress, Decompress, Encoding};

use crate::http::body::BodyError;
use crate::http::transform::Transform;

/// Output may always have so many bytes: small bodies compress well without being bombs.
const FREE_OUTPUT: usize = 256 * 1024;

/// Compresses. What came is sent on at once, so that streams stay streams.
pub(crate) enum Compressing {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, Vec<u8>>>),
    Ended,
}

impl Compressing {
    pub(crate) fn new(library: Compress) -> io::Result<Self> {
        Ok(match library.encoding {
            Encoding::Gzip => {
                let level = flate2::Compression::new(library.level);
                Self::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
            Encoding::Brotli => {
                let writer =
                    brotli::CompressorWriter::new(Vec::new(), 4096, library.level, library.window_bits);
                Self::Brotli(Box::new(writer))
            }
            Encoding::Zstd => {
                let level = i32::try_from(library.level).unwrap_or(3);
                Self::Zstd(Box::new(zstd::stream::write::Encoder::new(Vec::new(), level)?))
            }
        })
    }

    fn push(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        fn through<W: Write>(
            writer: &mut W,
            data: &[u8],
            out: impl FnOnce(&mut W) -> &mut Vec<u8>,
        ) -> io::Result<Vec<u8>> {
            writer.write_all(data)?;
            writer.flush()?;
            Ok(std::mem::take(out(writer)))
        }
        match self {
            Self::Gzip(writer) => through(writer, data, |writer| writer.get_mut()),
            Self::Brotli(writer) => through(&mut **writer, data, |writer| writer.get_mut()),
            Self::Zstd(writer) => through(&mut **writer, data, |writer| writer.get_mut()),
            Self::Ended => Ok(Vec::new()),
        }
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match std::mem::replace(self, Self::Ended) {
            Self::Gzip(writer) => writer.finish(),
            Self::Brotli(writer) => Ok(writer.into_inner()),
            Self::Zstd(writer) => writer.finish(),
            Self::Ended => Ok(Vec::new()),
        }
    }
}

fn failed(_: io::Error) -> BodyError {
    BodyError::Reset("compression failed")
}

impl Transform for Compressing {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.push(&data).map(Bytes::from).map_err(failed)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        Ok((self.finish().map_err(failed)?.into(), trailers))
    }
}

/// Takes a decoder's output, up to a multiple of its input.
pub(crate) struct Sink {
    out: Vec<u8>,
    seen: usize,
    written: usize,
    ratio: usize,
}

impl Write for Sink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.written += data.len();
        if self.written > FREE_OUTPUT && self.written / self.ratio > self.seen {
            return Err(io::Error::other("the body grows too much"));
        }
        self.out.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decompresses, and gives up on bombs.
pub(crate) enum Decompressing {
    Gzip(Box<flate2::write::MultiGzDecoder<Sink>>),
    Brotli(Box<brotli::DecompressorWriter<Sink>>),
    Zstd(Box<zstd::stream::write::Decoder<'static, Sink>>),
}

impl Decompressing {
    pub(crate) fn new(library: Decompress) -> io::Result<Self> {
        let sink = Sink { out: Vec::new(), seen: 0, written: 0, ratio: library.max_ratio.max(1) as usize };
        Ok(match library.encoding {
            Encoding::Gzip => Self::Gzip(Box::new(flate2::write::MultiGzDecoder::new(sink))),
            Encoding::Brotli => Self::Brotli(Box::new(brotli::DecompressorWriter::new(sink, 4096))),
            Encoding::Zstd => Self::Zstd(Box::new(zstd::stream::write::Decoder::new(sink)?)),
        })
    }

    fn push(&mut self, data: &[u8]) -> io::Result<Vec<u8>> {
        fn through<W: Write>(
            writer: &mut W,
            data: &[u8],
            sink: impl Fn(&mut W) -> &mut Sink,
        ) -> io::Result<Vec<u8>> {
            sink(writer).seen += data.len();
            writer.write_all(data)?;
            writer.flush()?;
            Ok(std::mem::take(&mut sink(writer).out))
        }
        match self {
            Self::Gzip(writer) => through(writer, data, |writer| writer.get_mut()),
            Self::Brotli(writer) => through(&mut **writer, data, |writer| writer.get_mut()),
            Self::Zstd(writer) => through(&mut **writer, data, |writer| writer.get_mut()),
        }
    }

    fn finish(&mut self) -> io::Result<Vec<u8>> {
        match self {
            Self::Gzip(writer) => {
                writer.try_finish()?;
                Ok(std::mem::take(&mut writer.get_mut().out))
            }
            Self::Brotli(writer) => {
                writer.close()?;
                Ok(std::mem::take(&mut writer.get_mut().out))
            }
            Self::Zstd(writer) => {
                writer.flush()?;
                Ok(std::mem::take(&mut writer.get_mut().out))
            }
        }
    }
}

fn not_decompressed(error: io::Error) -> BodyError {
    tracing::debug!(%error, "a body could not be decompressed");
    BodyError::Reset("decompression failed")
}

impl Transform for Decompressing {
    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        self.push(&data).map(Bytes::from).map_err(not_decompressed)
    }

    fn end(&mut self, trailers: Option<HeaderMap>) -> Result<(Bytes, Option<HeaderMap>), BodyError> {
        Ok((self.finish().map_err(not_decompressed)?.into(), trailers))
    }
}

/// Whether `cache-control` forbids to touch the body.
pub(crate) fn no_transform(headers: &HeaderMap) -> bool {
    headers
        .get_all(http::header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.split(',').any(|part| part.trim().eq_ignore_ascii_case("no-transform")))
}

/// Appends to a list header, unless the value is in it.
pub(crate) fn append_to_list(headers: &mut HeaderMap, name: http::HeaderName, item: &str) {
    let old: Vec<&str> = headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect();
    let old = old.join(", ");
    let has = |part: &str| part.split(';').next().is_some_and(|part| part.trim().eq_ignore_ascii_case(item));
    if old.split(',').any(has) {
        return;
    }
    let text = if old.is_empty() { item.to_owned() } else { format!("{old},{item}") };
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Encoding; 3] = [Encoding::Gzip, Encoding::Brotli, Encoding::Zstd];

    fn compressed(encoding: Encoding, parts: &[&[u8]]) -> Vec<u8> {
        let mut codec = Compressing::new(Compress { encoding, level: 3, window_bits: 18 }).unwrap();
        let mut out = Vec::new();
        for part in parts {
            out.extend(codec.push(part).unwrap());
        }
        out.extend(codec.finish().unwrap());
        out
    }

    #[test]
    fn what_is_compressed_can_be_read_again() {
        for encoding in ALL {
            let bytes = compressed(encoding, &[b"hello ", b"hello ", b"hello"]);
            let mut codec = Decompressing::new(Decompress { encoding, max_ratio: 100 }).unwrap();
            let mut back = Vec::new();
            for byte in bytes {
                back.extend(codec.push(&[byte]).unwrap());
            }
            back.extend(codec.finish().unwrap());
            assert_eq!(back, b"hello hello hello", "{encoding:?}");
        }
    }

    #[test]
    fn bombs_are_given_up_on() {
        let zeros = vec![0; 8 << 20];
        for encoding in ALL {
            let bomb = compressed(encoding, &[&zeros]);
            let mut codec = Decompressing::new(Decompress { encoding, max_ratio: 10 }).unwrap();
            assert!(codec.push(&bomb).is_err(), "{encoding:?}: {} bytes", bomb.len());
        }
    }
}
