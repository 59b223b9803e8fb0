"""The pages of the documentation, and in ``docs.generate`` the programs that write some of them."""
