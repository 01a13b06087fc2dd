"""What pages for people share: the frame, its stylesheet, and pictures inside them."""
