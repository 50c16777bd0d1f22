//! The table of a chart's values, from the comments in its `values.yaml`: one comment above each value, or above a group whose
//! parts have none. A reader of this one file's style, not of YAML.

use anyhow::{Context, Result, bail};

/// A key, with what is below it.
#[derive(Default)]
struct Node {
    key: String,
    comment: Vec<String>,
    value: Option<String>,
    children: Vec<Node>,
}

/// A Markdown table with a row for each value.
pub fn table(yaml: &str) -> Result<String> {
    let mut table = "| Value | Default | Meaning |\n|---|---|---|\n".to_owned();
    for node in &parse(yaml)? {
        rows(node, "", &mut table)?;
    }
    Ok(table)
}

fn rows(node: &Node, above: &str, table: &mut String) -> Result<()> {
    let path = format!("{above}{}", node.key);
    if node.value.is_none() && node.children.iter().any(Node::is_documented) {
        let above = format!("{path}.");
        return node
            .children
            .iter()
            .try_for_each(|child| rows(child, &above, table));
    }
    if node.comment.is_empty() {
        bail!("values.yaml: {path} has no comment that says what it means");
    }
    let meaning = node.comment.join(" ").replace('|', "\\|");
    let default = node.flow().replace('|', "\\|");
    table.push_str(&format!("| `{path}` | `{default}` | {meaning} |\n"));
    Ok(())
}

// === impl Node ===

impl Node {
    /// Whether it or anything below has a comment.
    fn is_documented(&self) -> bool {
        !self.comment.is_empty() || self.children.iter().any(Self::is_documented)
    }

    /// Its value on one line.
    fn flow(&self) -> String {
        let parts = || {
            let parts = self.children.iter();
            parts.map(|child| format!("{}: {}", child.key, child.flow()))
        };
        self.value
            .clone()
            .unwrap_or_else(|| format!("{{{}}}", parts().collect::<Vec<_>>().join(", ")))
    }
}

fn parse(yaml: &str) -> Result<Vec<Node>> {
    let mut comment = Vec::new();
    // The path to the last line, from a root that has no key.
    let mut open: Vec<Node> = vec![Node::default()];
    for (number, line) in yaml.lines().enumerate() {
        let text = line.trim();
        if text.is_empty() {
            comment.clear();
        } else if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim().to_owned());
        } else {
            let place = || format!("values.yaml, line {}: {text}", number + 1);
            let depth = 1 + (line.len() - line.trim_start().len()) / 2;
            if depth > open.len() {
                bail!("{}: two spaces a level", place());
            }
            close(&mut open, depth);
            let (key, value) = text.split_once(':').with_context(place)?;
            let value = value.trim();
            open.push(Node {
                key: key.to_owned(),
                comment: std::mem::take(&mut comment),
                value: (!value.is_empty()).then(|| value.to_owned()),
                children: Vec::new(),
            });
        }
    }
    close(&mut open, 1);
    Ok(open.pop().map(|root| root.children).unwrap_or_default())
}

/// Puts each open node into the one above it, until so many are left.
fn close(open: &mut Vec<Node>, depth: usize) {
    while open.len() > depth {
        if let (Some(node), Some(above)) = (open.pop(), open.last_mut()) {
            above.children.push(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_value_or_a_group_without_comments_inside() {
        let yaml = "# About the file.\n\n# What\n# a is.\na: \"\"\nb:\n  # What c | d is.\n  c: [X]\n  # What e is.\n  e:\n    f: 1\n    g: {}\n";
        let rows = table(yaml).unwrap();
        let rows: Vec<_> = rows.lines().skip(2).collect();
        assert_eq!(
            rows,
            [
                "| `a` | `\"\"` | What a is. |",
                "| `b.c` | `[X]` | What c \\| d is. |",
                "| `b.e` | `{f: 1, g: {}}` | What e is. |",
            ]
        );
    }

    #[test]
    fn a_value_without_a_comment_is_an_error() {
        assert!(table("a: 1\n").unwrap_err().to_string().contains('a'));
        let one_of_two = "a:\n  # What b is.\n  b: 1\n  c: 2\n";
        assert!(table(one_of_two).unwrap_err().to_string().contains("a.c"));
        assert!(table("a:\n    b: 1\n").is_err());
    }
}
