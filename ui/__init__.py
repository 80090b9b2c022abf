"""What the pages share. Beside Home.py and pages/, the only room that knows Streamlit."""
