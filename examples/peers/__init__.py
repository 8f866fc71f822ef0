"""What ``compare_with_peers.py`` times: the steps, in each library, and their floor."""
