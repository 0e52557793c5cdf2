"""What all pictures have in common."""

# Okabe and Ito's colours, which are told apart by every kind of colour vision; the colour map goes from light to dark.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#999999"
COLOUR_MAP = "Blues"
# Inches that a row of names takes.
ROW = 0.26
