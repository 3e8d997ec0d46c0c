//! The items of a list as one JSON array, ready to send, and where each is.
//!
//! Every item keeps the bytes it was written with. A run of items is a slice
//! of the array, so that neither a page nor the whole list is copied.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;

use crate::mcp::Raw;

/// A JSON array whose items can be taken without parsing it.
/// Clones share the bytes.
#[derive(Debug, Clone)]
pub struct Items {
    /// `[first,second,...]`
    array: Bytes,
    /// Where each item ends; a comma stands between two.
    ends: Arc<[u32]>,
}

/// The items would not fit into four gigabytes, or the lengths do not fit the array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the item boundaries do not fit the array")]
pub struct BadBoundaries;

impl Default for Items {
    fn default() -> Self {
        Self {
            array: Bytes::from_static(b"[]"),
            ends: [].into(),
        }
    }
}

impl Items {
    /// Joins `items` in order.
    ///
    /// # Errors
    /// When they are longer than four gigabytes.
    pub fn join<T: AsRef<[u8]>>(items: &[T]) -> Result<Self, BadBoundaries> {
        let length: usize = items.iter().map(|item| item.as_ref().len() + 1).sum();
        let mut array = Vec::with_capacity(length + 2);
        let mut ends = Vec::with_capacity(items.len());
        array.push(b'[');
        for item in items {
            if !ends.is_empty() {
                array.push(b',');
            }
            array.extend_from_slice(item.as_ref());
            ends.push(u32::try_from(array.len()).map_err(|_| BadBoundaries)?);
        }
        array.push(b']');
        Ok(Self {
            array: array.into(),
            ends: ends.into(),
        })
    }

    /// Puts together what [`array`](Self::array) and [`ends`](Self::ends) gave.
    ///
    /// # Errors
    /// When they do not belong together.
    pub fn from_parts(array: Bytes, ends: Vec<u32>) -> Result<Self, BadBoundaries> {
        let items = Self {
            array,
            ends: ends.into(),
        };
        if items.is_consistent() {
            Ok(items)
        } else {
            Err(BadBoundaries)
        }
    }

    fn is_consistent(&self) -> bool {
        let mut start = 1;
        for &end in &*self.ends {
            let end = end as usize;
            if end < start || end >= self.array.len() {
                return false;
            }
            start = end + 1;
        }
        let last = self.ends.last().map_or(1, |&end| end as usize);
        self.array.first() == Some(&b'[')
            && self.array.last() == Some(&b']')
            && last + 1 == self.array.len()
    }

    /// How many items there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The whole JSON array.
    #[must_use]
    pub fn array(&self) -> &Bytes {
        &self.array
    }

    /// Where each item ends in the array.
    #[must_use]
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// The items of `range`, joined by commas, without brackets. A range that
    /// reaches past the end is cut there.
    #[must_use]
    pub fn run(&self, range: Range<usize>) -> Bytes {
        let end = range.end.min(self.len());
        if range.start >= end {
            return Bytes::new();
        }
        self.array.slice(self.start(range.start)..self.end(end - 1))
    }

    /// One item as it was written.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        (index < self.len()).then(|| &self.array[self.start(index)..self.end(index)])
    }

    /// One item as raw JSON.
    #[must_use]
    pub fn raw(&self, index: usize) -> Option<&Raw> {
        self.get(index)
            .and_then(|item| serde_json::from_slice(item).ok())
    }

    /// All items in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| &self.array[self.start(index)..self.end(index)])
    }

    fn start(&self, index: usize) -> usize {
        match index.checked_sub(1) {
            None => 1,
            Some(before) => self.end(before) + 1,
        }
    }

    fn end(&self, index: usize) -> usize {
        self.ends[index] as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_empty_list_is_an_empty_array() {
        let none = Items::join::<&[u8]>(&[]).expect("small");
        assert_eq!(none.array(), "[]");
        assert!(none.is_empty() && none.run(0..5).is_empty() && none.get(0).is_none());
    }

    #[test]
    fn runs_are_slices_of_the_array() {
        let items = Items::join(&["{\"a\":1}", "2", "[3]"]).expect("small");
        assert_eq!(items.array(), "[{\"a\":1},2,[3]]");
        assert_eq!(items.run(0..2), "{\"a\":1},2");
        assert_eq!(items.run(1..99), "2,[3]");
        assert_eq!(items.run(3..4), "");
        assert_eq!(items.get(2), Some(&b"[3]"[..]));
    }

    #[test]
    fn boundaries_that_do_not_fit_are_refused() {
        let array = Bytes::from_static(b"[1,2]");
        for bad in [
            vec![],
            vec![2],
            vec![2, 5],
            vec![4, 2],
            vec![2, 4, 4],
            vec![0, 4],
        ] {
            assert!(
                Items::from_parts(array.clone(), bad.clone()).is_err(),
                "{bad:?}"
            );
        }
        assert!(Items::from_parts(Bytes::new(), vec![]).is_err());
        assert!(Items::from_parts(array, vec![2, 4]).is_ok());
    }

    proptest! {
        #[test]
        fn every_item_keeps_its_bytes(items in prop::collection::vec("[a-z{}0-9]{1,9}", 0..20)) {
            let joined = Items::join(&items).expect("small");
            let again = Items::from_parts(joined.array().clone(), joined.ends().to_vec()).expect("own parts");
            let back: Vec<_> = again.iter().map(|item| String::from_utf8_lossy(item).into_owned()).collect();
            prop_assert_eq!(back, items);
        }
    }
}
