"""The methods to compare with, one short file each; every one only makes a Plan."""
