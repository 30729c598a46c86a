//! The elements of a JSON array that comes piece by piece.

/// Cuts an array into its elements.
#[derive(Debug, Default)]
pub struct Elements {
    seen: Vec<u8>,
    depth: usize,
    in_string: bool,
    escaped: bool,
    begun: bool,
    ended: bool,
}

impl Elements {
    /// Takes bytes in; gives the elements that are whole now. `None`: this is no array.
    pub fn push(&mut self, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut whole = Vec::new();
        for &byte in bytes {
            if self.in_string {
                self.seen.push(byte);
                match byte {
                    _ if self.escaped => self.escaped = false,
                    b'\\' => self.escaped = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => continue,
                _ if self.ended => return None,
                b'[' if !self.begun => {
                    self.begun = true;
                    continue;
                }
                _ if !self.begun => return None,
                b',' | b']' if self.depth == 0 => {
                    if self.seen.is_empty() {
                        if byte == b',' {
                            return None;
                        }
                    } else {
                        whole.push(std::mem::take(&mut self.seen));
                    }
                    self.ended = byte == b']';
                    continue;
                }
                b'"' => self.in_string = true,
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => self.depth = self.depth.checked_sub(1)?,
                _ => {}
            }
            self.seen.push(byte);
        }
        Some(whole)
    }

    /// Whether all of it was there, or nothing at all.
    pub fn is_over(&self) -> bool {
        self.ended || !self.begun
    }

    /// How much is held of an element that is not whole.
    pub fn held(&self) -> usize {
        self.seen.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_whole_however_they_are_cut() {
        let text = br#" [ {"a": "],\"{"}, 2,[3 ,4] ] "#;
        for size in 1..text.len() {
            let mut elements = Elements::default();
            let all: Vec<_> = text.chunks(size).flat_map(|chunk| elements.push(chunk).unwrap()).collect();
            let all: Vec<_> = all.iter().map(|one| std::str::from_utf8(one).unwrap()).collect();
            assert_eq!(all, [r#"{"a":"],\"{"}"#, "2", "[3,4]"]);
            assert!(elements.is_over());
        }
    }

    #[test]
    fn what_is_no_array_is_told() {
        for bad in ["{}", "[1]]", "[}]", "[,1]"] {
            assert!(Elements::default().push(bad.as_bytes()).is_none(), "{bad}");
        }
        let mut open = Elements::default();
        open.push(b"[1").unwrap();
        assert!(!open.is_over());
    }
}
