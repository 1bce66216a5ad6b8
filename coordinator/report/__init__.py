"""What a run came to: figures from the database, and the page that shows them."""
