"""The page of `gen1 app`: `page` draws it with Gradio, all else is what it draws and knows nothing of Gradio."""
