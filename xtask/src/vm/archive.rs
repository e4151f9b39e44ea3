//! The archive that the kernel unpacks as its first file system: a few folders and files in the form that cpio calls `newc`.
//!
//! Called by `build`. It writes what it is given and reads nothing.

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CONSOLE: u32 = 0o020_600;
const END: &str = "TRAILER!!!";

/// The bytes of the archive.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder; those above it come first.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, (0, 0), &[]);
    }

    /// Adds a program.
    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, (0, 0), content);
    }

    /// Adds the device that the first program writes to before it has mounted anything.
    pub(super) fn console(&mut self, name: &str) {
        self.entry(name, CONSOLE, (5, 1), &[]);
    }

    /// The whole.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry(END, 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.entries += 1;
        let length = u32::try_from(content.len()).unwrap_or(u32::MAX);
        // number, mode, user, group, links, time, length, device of the archive (2), of the entry (2), length of the name, sum
        let name_length = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_begin_at_multiples_of_four_and_hold_what_was_given() {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.console("dev/console");
        archive.program("init", b"#!");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8(bytes).unwrap();
        let places: Vec<usize> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(places.len(), 4);
        assert!(places.iter().all(|place| place % 4 == 0));
        assert!(text.contains("init\0") && text.contains("#!\0\0") && text.contains(END));
        assert_eq!(&text[places[2] + 6 + 6 * 8..][..8], "00000002");
    }
}
