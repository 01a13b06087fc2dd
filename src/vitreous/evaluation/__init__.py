"""How good is it, and how sure can we be of that?"""
