"""What a trained model sees: its boxes, words and answers on any picture, drawn for people."""
