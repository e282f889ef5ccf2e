//! XML that is changed and written again: as little of a library as that takes.
//! Comments and white space between elements are lost.

use std::fmt;

use roxmltree::{Document, Node};

use super::{Escaped, XmlError};

/// An element with all that is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element {
    /// With its prefix, as `qemu:commandline`.
    pub(super) name: String,
    pub(super) attributes: Vec<(String, String)>,
    pub(super) inside: Vec<Inside>,
}

/// What is in an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inside {
    Element(Element),
    Text(String),
}

impl Element {
    /// An empty one.
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), attributes: Vec::new(), inside: Vec::new() }
    }

    /// Reads a document's outermost element.
    ///
    /// # Errors
    /// When it is not XML.
    pub(super) fn parse(xml: &str) -> Result<Self, XmlError> {
        let document = Document::parse(xml)?;
        Ok(Self::of(document.root_element()))
    }

    fn of(node: Node<'_, '_>) -> Self {
        let prefixed = |namespace: Option<&str>, name: &str| match namespace
            .and_then(|uri| node.lookup_prefix(uri))
        {
            Some(prefix) if !prefix.is_empty() => format!("{prefix}:{name}"),
            _ => name.to_owned(),
        };
        let mut attributes = Vec::new();
        for namespace in node.namespaces() {
            let is_known = node.parent_element().is_some_and(|parent| {
                parent
                    .namespaces()
                    .any(|known| (known.name(), known.uri()) == (namespace.name(), namespace.uri()))
            });
            match namespace.name() {
                _ if is_known => {}
                Some("xml") => {}
                Some(name) => attributes.push((format!("xmlns:{name}"), namespace.uri().into())),
                None => attributes.push(("xmlns".to_owned(), namespace.uri().into())),
            }
        }
        attributes.extend(node.attributes().map(|attribute| {
            (prefixed(attribute.namespace(), attribute.name()), attribute.value().to_owned())
        }));
        let inside = node.children().filter_map(|child| {
            if child.is_element() {
                return Some(Inside::Element(Self::of(child)));
            }
            let text = child.text().filter(|text| child.is_text() && !text.trim().is_empty())?;
            Some(Inside::Text(text.to_owned()))
        });
        let tag = node.tag_name();
        Self { name: prefixed(tag.namespace(), tag.name()), attributes, inside: inside.collect() }
    }

    /// With an attribute, in the place of one with the same name.
    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.set(name, value);
        self
    }

    /// With an element in it, behind what is there.
    pub(super) fn holding(mut self, child: Self) -> Self {
        self.push(child);
        self
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        match self.attributes.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.attributes.push((name.to_owned(), value.to_owned())),
        }
    }

    /// Removes an attribute; whether it was there.
    pub(super) fn unset(&mut self, name: &str) -> bool {
        let before = self.attributes.len();
        self.attributes.retain(|(known, _)| known != name);
        self.attributes.len() < before
    }

    pub(super) fn push(&mut self, child: Self) {
        self.inside.push(Inside::Element(child));
    }

    /// Its text, without that of elements in it.
    pub(super) fn text(&self) -> String {
        let texts = self.inside.iter().filter_map(|inside| match inside {
            Inside::Text(text) => Some(text.trim()),
            Inside::Element(_) => None,
        });
        texts.collect()
    }

    pub(super) fn set_text(&mut self, text: &str) {
        self.inside = vec![Inside::Text(text.to_owned())];
    }

    /// The elements in it.
    pub(super) fn elements(&self) -> impl Iterator<Item = &Self> {
        self.inside.iter().filter_map(|inside| match inside {
            Inside::Element(element) => Some(element),
            Inside::Text(_) => None,
        })
    }

    /// See [`elements`](Self::elements).
    pub(super) fn elements_mut(&mut self) -> impl Iterator<Item = &mut Self> {
        self.inside.iter_mut().filter_map(|inside| match inside {
            Inside::Element(element) => Some(element),
            Inside::Text(_) => None,
        })
    }

    /// The first element in it with this name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.elements().find(|element| element.name == name)
    }

    /// See [`child`](Self::child).
    pub(super) fn child_mut(&mut self, name: &str) -> Option<&mut Self> {
        self.elements_mut().find(|element| element.name == name)
    }

    /// The attribute of the first element in it with this name.
    pub(super) fn of_child(&self, name: &str, attribute: &str) -> Option<&str> {
        self.child(name)?.attribute(attribute)
    }

    /// Removes the elements for which `keep` is false; how many.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Self) -> bool) -> usize {
        let before = self.inside.len();
        self.inside.retain(|inside| match inside {
            Inside::Element(element) => keep(element),
            Inside::Text(_) => true,
        });
        before - self.inside.len()
    }

    /// Removes all elements with this name; how many.
    pub(super) fn remove(&mut self, name: &str) -> usize {
        self.retain(|element| element.name != name)
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}", self.name)?;
        for (name, value) in &self.attributes {
            write!(f, " {name}='{}'", Escaped(value))?;
        }
        if self.inside.is_empty() {
            return write!(f, "/>");
        }
        write!(f, ">")?;
        for inside in &self.inside {
            match inside {
                Inside::Element(element) => write!(f, "{element}")?,
                Inside::Text(text) => write!(f, "{}", Escaped(text))?,
            }
        }
        write!(f, "</{}>", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_changed_is_written_as_it_was_read() {
        let text = "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' type='kvm'>\
            <name>a &amp; b</name><metadata><l:x xmlns:l='http://example.org/l'><l:y z='1'/></l:x></metadata>\
            <qemu:commandline><qemu:arg value='-s'/></qemu:commandline></domain>";
        assert_eq!(Element::parse(text).unwrap().to_string(), text);
        assert_eq!(
            Element::parse("<a>\n <b/>\n <!-- c -->\n</a>").unwrap().to_string(),
            "<a><b/></a>"
        );
    }
}
