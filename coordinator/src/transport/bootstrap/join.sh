# Becomes a channel to the agent that runs in a folder. Arguments: how it is run, its folder.
via=$1; d=$2; run attach "$d"
