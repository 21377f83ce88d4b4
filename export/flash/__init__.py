"""From a bundle to a board: a card's seed, a running board over ssh, an image builder's tree."""
