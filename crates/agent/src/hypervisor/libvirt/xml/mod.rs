//! libvirt's XML, read into the domain's types, and the little that we write.
//! Pure functions, tested on samples that libvirt wrote.

use std::fmt;
use std::str::FromStr;

use domain::units::ByteCount;
use roxmltree::Node;

pub mod backup;
pub mod behind;
pub mod capabilities;
pub mod checkpoint;
pub mod machine;
pub mod network;
pub mod pool;
pub mod recovered;
mod tree;
pub mod variables;

/// XML of libvirt's that makes no sense to us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum XmlError {
    /// Not XML at all.
    #[error("libvirt's XML cannot be read: {0}")]
    Malformed(String),
    /// Something that libvirt always writes is not there.
    #[error("libvirt's XML of {object} has no usable <{element}>")]
    Missing {
        /// What the XML describes.
        object: &'static str,
        /// What is not there.
        element: &'static str,
    },
}

impl From<roxmltree::Error> for XmlError {
    fn from(error: roxmltree::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|child| child.has_tag_name(name))
}

fn children<'a, 'input>(
    node: Node<'a, 'input>,
    name: &'static str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    node.children().filter(move |child| child.has_tag_name(name))
}

fn text(node: Node<'_, '_>, name: &str) -> Option<String> {
    child(node, name)?.text().map(|text| text.trim().to_owned())
}

/// The attribute of a child, as `child@attribute`.
fn attribute(node: Node<'_, '_>, name: &str, attribute: &str) -> Option<String> {
    child(node, name)?.attribute(attribute).map(ToOwned::to_owned)
}

fn required<T: FromStr>(
    node: Node<'_, '_>,
    object: &'static str,
    element: &'static str,
) -> Result<T, XmlError> {
    text(node, element)
        .and_then(|text| text.parse().ok())
        .ok_or(XmlError::Missing { object, element })
}

/// Text as it stands between tags or quotes of XML.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '\'' => f.write_str("&apos;"),
            '"' => f.write_str("&quot;"),
            other => write!(f, "{other}"),
        })
    }
}

/// A size with libvirt's unit, which is KiB where none is given.
fn size(node: Node<'_, '_>) -> Option<ByteCount> {
    let number: u64 = node.text()?.trim().parse().ok()?;
    let factor = match node.attribute("unit").unwrap_or("KiB") {
        "b" | "bytes" => 1,
        "KB" => 1000,
        "k" | "KiB" => 1 << 10,
        "MB" => 1_000_000,
        "M" | "MiB" => 1 << 20,
        "GB" => 1_000_000_000,
        "G" | "GiB" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "T" | "TiB" => 1 << 40,
        _ => return None,
    };
    Some(ByteCount::new(number.saturating_mul(factor)))
}
