//! Where in which file something stands, and what is wrong there.

use std::{fmt, path::PathBuf};

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: PathBuf,
    /// The line in it, from 1; none if it is about the file as a whole.
    pub line: Option<u64>,
    /// What is wrong, with the field.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}", self.message)
    }
}

/// The files cannot be run as they are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ManifestError(pub Vec<Problem>);

/// One YAML document.
#[derive(Debug)]
pub(super) struct Document {
    pub file: PathBuf,
    /// Folder that `file:` images are relative to.
    pub base_dir: PathBuf,
    /// Line of the file that the text begins on, from 1.
    pub line: u64,
    pub text: String,
}

impl Document {
    /// The line that a field stands on, as well as can be told without a parser: the keys of its path are looked for one after
    /// the other.
    pub fn line_of(&self, field: &str) -> u64 {
        let mut lines = self.text.lines().zip(self.line..);
        let mut last = self.line;
        for part in field.split('.') {
            let key = part.split('[').next().unwrap_or(part);
            let index = part
                .split(['[', ']'])
                .nth(1)
                .and_then(|i| i.parse::<usize>().ok());
            let is_key = |line: &str| {
                let line = line.trim_start().trim_start_matches("- ").trim_start();
                line.strip_prefix(key)
                    .is_some_and(|rest| rest.trim_start().starts_with(':'))
            };
            match lines.by_ref().find(|(line, _)| is_key(line)) {
                Some((_, number)) => last = number,
                None => break,
            }
            if let Some(index) = index {
                // Items of lists within the items stand further to the right.
                let mut items = lines.clone().filter_map(|(line, n)| Some((item(line)?, n)));
                let first = items.clone().next().map(|(indent, _)| indent);
                match items
                    .by_ref()
                    .filter(|(indent, _)| Some(*indent) == first)
                    .nth(index)
                {
                    Some((_, number)) => {
                        last = number;
                        lines = self.text.lines().zip(self.line..);
                        // Goes on at the item, which may hold its first key on the same line.
                        while lines.clone().next().is_some_and(|(_, n)| n < number) {
                            lines.next();
                        }
                    }
                    None => break,
                }
            }
        }
        last
    }
}

/// How far to the right an item of a list begins, if the line begins one.
fn item(line: &str) -> Option<usize> {
    let text = line.trim_start();
    text.starts_with("- ").then_some(line.len() - text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_on_their_lines() {
        let text = "spec:
  components:
  - name: one
    image: a
    hosts:
    - x
    - y
  - name: two
    image: b
  hostInterfaces:
  - namespace: wasi
    config:
      host: c
";
        let document = Document {
            file: PathBuf::new(),
            base_dir: PathBuf::new(),
            line: 11,
            text: text.to_owned(),
        };
        let cases = [
            ("spec", 11),
            ("spec.components[0].name", 13),
            ("spec.components[0].image", 14),
            ("spec.components[0].hosts[1]", 17),
            ("spec.components[1].name", 18),
            ("spec.components[1].image", 19),
            ("spec.hostInterfaces[0].config.host", 23),
            ("spec.hostInterfaces[0].lost", 21),
            ("spec.components[7]", 12),
        ];
        for (field, line) in cases {
            assert_eq!(document.line_of(field), line, "{field}");
        }
    }
}
