//! Fields as HTTP/2 sends them (RFC 7541): an encoder that writes whatever it is told, right or
//! wrong, and a decoder of what the proxy answers. Written independently of the crate it uses.

use std::collections::VecDeque;

/// A block of fields, as it is to be sent.
#[derive(Clone, Debug, Default)]
pub struct Block(Vec<u8>);

impl Block {
    pub fn new() -> Self {
        Self::default()
    }

    /// The pseudo-header fields of a request for `test`, by plain HTTP.
    pub fn request(method: &str, path: &str) -> Self {
        Self::pseudo(&[
            (":method", method),
            (":scheme", "http"),
            (":authority", "test"),
            (":path", path),
        ])
    }

    pub fn get(path: &str) -> Self {
        Self::request("GET", path)
    }

    pub fn pseudo(fields: &[(&str, &str)]) -> Self {
        fields.iter().fold(Self::new(), |block, (name, value)| block.field(name, value))
    }

    /// A literal without indexing, not compressed.
    pub fn field(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.raw([0]).string(name.as_ref()).string(value.as_ref())
    }

    /// A literal that enters the dynamic table.
    pub fn remembered(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.raw([0x40]).string(name.as_ref()).string(value.as_ref())
    }

    /// A literal without indexing, both strings in Huffman's code.
    pub fn squeezed(self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.raw([0]).huffman(name.as_ref()).huffman(value.as_ref())
    }

    /// An entry of a table: 1 to 61 are static.
    pub fn index(mut self, index: usize) -> Self {
        write_integer(&mut self.0, 0x80, 7, index);
        self
    }

    /// A new size of the dynamic table.
    pub fn table_size(mut self, size: usize) -> Self {
        write_integer(&mut self.0, 0x20, 5, size);
        self
    }

    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    fn string(mut self, bytes: &[u8]) -> Self {
        write_integer(&mut self.0, 0, 7, bytes.len());
        self.raw(bytes)
    }

    fn huffman(mut self, bytes: &[u8]) -> Self {
        let codes = codes();
        let (mut bits, mut count, mut out) = (0_u64, 0, Vec::new());
        for &byte in bytes {
            let (code, length) = codes[usize::from(byte)];
            bits = bits << length | u64::from(code);
            count += length;
            while count >= 8 {
                count -= 8;
                out.push((bits >> count) as u8);
            }
        }
        if count > 0 {
            out.push((bits << (8 - count)) as u8 | 0xff >> count);
        }
        write_integer(&mut self.0, 0x80, 7, out.len());
        self.raw(out)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

fn write_integer(out: &mut Vec<u8>, pattern: u8, prefix: u32, value: usize) {
    let most = (1 << prefix) - 1;
    if value < most {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(rest as u8 | 128);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub type Fields = Vec<(String, String)>;

#[derive(Debug)]
pub struct Decoder {
    /// The newest first.
    table: VecDeque<(String, String)>,
    size_max: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { table: VecDeque::new(), size_max: 4096 }
    }
}

impl Decoder {
    pub fn decode(&mut self, mut block: &[u8]) -> Fields {
        let mut fields = Fields::new();
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let index = read_integer(&mut block, 7);
                fields.push(self.entry(index));
            } else if first & 0xe0 == 0x20 {
                self.size_max = read_integer(&mut block, 5);
                assert!(self.size_max <= 4096, "a table of {} bytes", self.size_max);
                self.evict();
            } else {
                let is_remembered = first & 0x40 != 0;
                let index = read_integer(&mut block, if is_remembered { 6 } else { 4 });
                let name = if index == 0 { read_string(&mut block) } else { self.entry(index).0 };
                let field = (name, read_string(&mut block));
                if is_remembered {
                    self.table.push_front(field.clone());
                    self.evict();
                }
                fields.push(field);
            }
        }
        fields
    }

    fn entry(&self, index: usize) -> (String, String) {
        assert!(index > 0, "index 0");
        let known = STATIC.get(index - 1).map(|&(name, value)| (name.to_owned(), value.to_owned()));
        known
            .or_else(|| self.table.get(index - 1 - STATIC.len()).cloned())
            .unwrap_or_else(|| panic!("no entry {index} in {:?}", self.table))
    }

    fn evict(&mut self) {
        let size = |(name, value): &(String, String)| name.len() + value.len() + 32;
        while self.table.iter().map(size).sum::<usize>() > self.size_max {
            self.table.pop_back();
        }
    }
}

fn read_integer(block: &mut &[u8], prefix: u32) -> usize {
    let most = (1 << prefix) - 1;
    let mut value = usize::from(take(block)) & most;
    let mut shift = 0;
    while value >= most {
        let byte = take(block);
        value += usize::from(byte & 127) << shift;
        shift += 7;
        if byte < 128 {
            break;
        }
    }
    value
}

fn read_string(block: &mut &[u8]) -> String {
    let is_squeezed = block[0] & 0x80 != 0;
    let length = read_integer(block, 7);
    let (bytes, rest) = block.split_at(length);
    *block = rest;
    let bytes = if is_squeezed { expand(bytes) } else { bytes.to_vec() };
    String::from_utf8_lossy(&bytes).into_owned()
}

fn take(block: &mut &[u8]) -> u8 {
    let (&first, rest) = block.split_first().expect("the block goes on");
    *block = rest;
    first
}

fn expand(bytes: &[u8]) -> Vec<u8> {
    let codes = codes();
    let mut out = Vec::new();
    let (mut code, mut length) = (0, 0);
    for byte in bytes {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let found = codes.iter().position(|&known| known == (code, length));
            if let Some(symbol) = found {
                out.push(u8::try_from(symbol).expect("no end of string inside"));
                (code, length) = (0, 0);
            }
        }
    }
    assert!(length < 8 && code == (1 << length) - 1, "padding is all ones, less than a byte");
    out
}

/// The code of each byte, and of the end of a string, with its length in bits. Huffman's code of
/// RFC 7541 is canonical: the lengths say all of it (appendix B).
fn codes() -> Vec<(u32, u32)> {
    let lengths: Vec<u32> = LENGTHS.bytes().map(|letter| u32::from(letter - b'a') + 5).collect();
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&symbol| (lengths[symbol], symbol));
    let mut codes = vec![(0, 0); lengths.len()];
    let (mut code, mut before) = (0_u32, 5);
    for symbol in order {
        code <<= lengths[symbol] - before;
        codes[symbol] = (code, lengths[symbol]);
        before = lengths[symbol];
        code = code.wrapping_add(1);
    }
    codes
}

/// A letter for each symbol: `a` is a code of 5 bits.
const LENGTHS: &str = "\
isxxxxxxxtzxxzxxxxxxxxzxxxxxxxxxbffhibdgffdgdbbbaaabbbbbbbcdkbhf\
ibccccccccccccccccccccccdcdioijkbabababbbaccbbbabcbaabccccckgjix\
prpprrrsrssssststtrstssssqrsrsstrqprrssqsrrtqrssqqrqsrssprrrsrrs\
vvporsruvvvwwvtuoqvwwvwtqqvvxwwwptpqrqqsrruuttvsvwvvwwwwwxwwwwwv\
z";

const STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];
