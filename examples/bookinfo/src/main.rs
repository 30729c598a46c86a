//! Bookinfo's services: a product page, details, reviews and ratings.

fn main() {}
