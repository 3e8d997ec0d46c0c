//! Draws in proportion to weights in constant time (Vose, "A Linear Algorithm
//! for Generating Random Numbers with a Given Distribution", 1991).

use rand::{Rng, RngExt as _};

/// A column per choice: itself, or the choice that shares its column.
#[derive(Debug)]
pub(super) struct Alias {
    columns: Box<[Column]>,
    /// Height of a column: the sum of all weights.
    height: u64,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    /// Up to here the column is its own.
    own: u64,
    /// Above it belongs to this one.
    other: u32,
}

impl Alias {
    /// `None` when all weights are the same, zero included: then any draw will do.
    pub(super) fn new(weights: &[u32]) -> Option<Self> {
        let first = weights.first()?;
        if weights.iter().all(|weight| weight == first) {
            return None;
        }
        // In whole numbers: weights are multiplied by how many there are, so
        // that the mean height is the sum and nothing is lost to rounding.
        let height: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
        let count = weights.len() as u64;
        let mut columns: Vec<Column> = (0u32..)
            .zip(weights)
            .map(|(index, &weight)| Column {
                own: u64::from(weight) * count,
                other: index,
            })
            .collect();
        let (mut low, mut high): (Vec<usize>, Vec<usize>) =
            (0..columns.len()).partition(|&index| columns[index].own < height);
        while let (Some(poor), Some(&rich)) = (low.pop(), high.last()) {
            let missing = height - columns[poor].own;
            columns[poor].other = u32::try_from(rich).unwrap_or_default();
            columns[rich].own -= missing;
            if columns[rich].own < height {
                high.pop();
                low.push(rich);
            }
        }
        Some(Self {
            columns: columns.into(),
            height,
        })
    }

    /// The place of the drawn choice.
    pub(super) fn draw(&self, random: &mut impl Rng) -> usize {
        let place = random.random_range(0..self.columns.len());
        let Column { own, other } = self.columns[place];
        if random.random_range(0..self.height) < own {
            place
        } else {
            other as usize
        }
    }

    /// How much of the whole each choice has, in parts of `height × count`.
    #[cfg(test)]
    pub(super) fn shares(&self) -> Vec<u64> {
        let mut shares = vec![0; self.columns.len()];
        for (place, column) in self.columns.iter().enumerate() {
            let own = column.own.min(self.height);
            shares[place] += own;
            shares[column.other as usize] += self.height - own;
        }
        shares
    }
}
